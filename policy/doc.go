// Package policy decides which prefixes go through the tunnel. Facts about the host and settings
// from every source go in; a [Plan] with its reasons comes out.
//
//	flags, environment, files, kubeconfig ──► Decode, Values ─┐
//	the cluster's Policy ─────────────────────────────────────┴► Merge ──► Settings ─┐
//	node/routefacts ──► Facts (routes of all tables, rules, links) ──────────────────┼► NewPlan ──► Plan
//	the gateway's status ──► Cluster (services, pods) ───────────────────────────────┤
//	ChooseVirtual ──► Virtual (subnets, twins so far) ───────────────────────────────┘
//
// Facts are all that steers packets: routes of all tables, rules, and IPsec policies, which take packets
// whatever their route says. On a host without policy routing the same decisions become longer prefixes.
//
// Every wanted prefix has a twin, a virtual prefix that stands for it 1:1 on the wire, as long as the
// connection lasts. A plan says which addresses are reached by their own and which by their twin's; what
// translates between them is the gateway, and node/vnat where programs use leased addresses instead.
//
// The package is pure: no I/O, clock, environment, goroutine, Kubernetes client or netlink type, so
// that every odd laptop is one row of a table test, on every OS. It owns no state; every function
// may be called from any goroutine, and equal inputs give equal outputs. A [Planner] remembers its last
// input to be faster at the next; it belongs to whoever holds it.
//
// It does not read routes (node/routefacts does), nor change them (node/hostnet does).
package policy
