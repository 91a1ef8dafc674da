// Package routefacts reads what steers packets on this host: the routes of all tables, the policy
// routing rules, the interfaces and their addresses, as a [policy.Facts]; and it tells when they changed.
//
//	kernel ──► netlink dumps ──► decode, entry by entry ──► policy.Facts ──► policy.NewPlan
//	   └─────► netlink events ──► filter ──► merge ──► "read again"
//
// It changes nothing and needs no privilege, but for the IPsec policies, which only root may see. Its
// only state are the sockets of watchers, which belong to their callers. An entry that cannot be
// understood becomes a warning in the facts, never an error: one odd route must not take the whole
// picture away. It speaks for the network namespace of the calling thread.
package routefacts
