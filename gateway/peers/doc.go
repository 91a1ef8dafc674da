// Package peers turns the Peer objects of a namespace into configured WireGuard peers, and answers
// each of them in its status.
//
//	API: Peers ──► mirror ──┐
//	cluster subnets ────────┼──► NewPlan (pure) ──► data plane, WireGuard device ──► statuses ──► API
//	WireGuard counters ─────┘                       (packets flow)                   (the node is told)
//
// [NewPlan] decides: which Peers are served, what is wrong with the others, what every status should
// say and which Peers fell silent. The [Controller] applies plans and owns all state of the package
// in one goroutine; only requests to the API server run beside it. Nothing is kept that is not in
// the API, so a new pod serves the same Peers after reading them once.
//
// Twins (spec.twins) are checked here and translated by the data plane, for their Peer alone: two Peers may
// ask for the same virtual prefix. They are destinations, so WireGuard's AllowedIPs do not know them. What
// they may lead to is not decided here, but by egress for each flow. Only they may change while a Peer is
// served.
//
// A Peer is untrusted input from anybody with the documented Role: every field is checked before use,
// also where the CRD's schema has checked it already.
package peers
