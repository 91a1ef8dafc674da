// Package agents keeps one agent for each workload that a connection goes through: it has one put into a pod
// of the workload, enrols there, and takes another pod when that one is lost.
//
//	policy.Workload ─► Resolve ─► PickPod ─► PlaceAgent ─► enrol (control port) ─► State Up: pod and key
//	                      ▲                                   │ again every few minutes, and for new twins
//	                      └──── pod gone, container ended ────┘ WatchAgent
//
// A [Keeper] never gives up: it says in its [State] what is in the way and whether waiting alone may cure that, and
// tries again. It neither carries packets nor configures WireGuard; whoever runs it does, with the agent and
// the key of the State. The goroutine of [Keeper.Run] owns all of it; others read snapshots and say what they want.
package agents
