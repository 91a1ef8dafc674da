// Package kube is the node's view of the Kubernetes API: who the user is, the team's Policy, the
// Peer of a connection, the gateway's pods, the agents in pods of workloads, and streams to all of them by
// port-forward.
//
//	policy.Workload ─ Resolve ─► Workload ─ PickPod ─► pod ─ PlaceAgent ─► Agent ─ DialAgent ─► stream
//	                                          ▲                              │
//	                                          └──── another is needed ◄── WatchAgent
//
// When to do these, and again, is for the caller to decide: nothing here is remembered between two calls.
//
// It uses the dynamic client on purpose: the typed clientset costs a long-lived process several
// megabytes and tens of milliseconds for types it never looks at. Everything here acts with the
// user's own credentials. The addresses really dialled are recorded ([Client.Dialled]), because
// they must never be routed into the tunnel they carry.
package kube
