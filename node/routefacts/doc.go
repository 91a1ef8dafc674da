// Package routefacts reads what steers packets on this host: the routes of all tables, the policy
// routing rules, the interfaces and their addresses, as a [policy.Facts].
//
//	kernel ──► netlink dumps ──► decode, entry by entry ──► policy.Facts ──► policy.NewPlan
//
// It changes nothing, needs no privilege and keeps no state. An entry that cannot be understood
// becomes a warning in the facts, never an error: one odd route must not take the whole picture
// away. It speaks for the network namespace of the calling thread.
package routefacts
