// Package agent is the gateway program inside one pod of a workload: whoever is enrolled reaches, as that pod
// and within the prefixes asked for, what the pod reaches, its loopback included.
//
//	node ── port-forward ──► loopback:7842  control: enrol ──► nodes ─────────┐ whom to serve, what each may reach
//	node ── port-forward ──► loopback:7841  carrier ──► tunnel (WireGuard, data plane, DNS) ──► sockets of the pod
//
// Both ports listen on the pod's loopback alone, and the agent does not dial them for anybody: the way to them is
// the API server's, which asks whether the user may forward ports of this pod. That is all the authority there is:
// whoever gets here may enrol. The agent is told nothing else, has no credentials, writes no file, and makes its
// key in memory.
//
// # Nodes
//
// A node is one connection of a workstation. It says all it wants in one request (package enrol) and the next
// request of the same connection or key replaces that: flows that mean the same as before live on. An address or
// key of another node is refused, as is what no agent serves. A node leaves with a bye, or when nothing was
// heard of it for [Config].Idle, ten minutes at most: no request, no WireGuard packet, no open stream of the
// carrier.
//
// # Egress
//
// A node reaches the real prefixes of its twins, but nothing that package egress never dials: link-local,
// metadata of clouds, multicast; nor other nodes, nor this agent's own ports.
//
// # End
//
// [Agent.Run] returns when its context ends, or with [ErrIdle] after Config.Idle without any sign of life.
//
// An Agent owns its tunnel and its listeners. The table of nodes is under a mutex; what the data plane asks for
// each flow is an immutable snapshot. The package knows no Kubernetes.
package agent
