// Package dns is the resolver of the node: it listens on the addresses of the tunnel's own interface, asks the
// cluster for the cluster's names and the host's own resolvers for everything else, and remembers the answers.
//
//	                     ┌─ cached ────────────────────────────────────────────────────► hide, withhold ─► reply
//	query ─► parse ──────┤
//	(UDP, TCP)           └─ flight (one per question) ─► Route ─┬─► gateway ─► (agents) ─► rewrite, filter ─┐
//	                                                            │      │ no such name          ▲            ├─► cache ─► hide, withhold ─► reply
//	                                                            ├──────┼─► agent ──────────────┘            │
//	                                                            │      ▼                                    │
//	                                                            └─► the host's resolvers ───────────────────┘
//
// [Route] is pure: configuration and question in, decision and reason out. The rest is built around three rules.
// A cached answer costs no allocation. A source that does not answer delays no question meant for another. With the
// tunnel down everything outside the cluster still resolves, and the cluster's names fail with SERVFAIL rather than
// be denied.
//
// A [Server] owns its sockets and its state from [NewServer] until [Server.Run] returns. The configuration is an
// immutable snapshot replaced by [Server.Set]; caches and questions in flight belong to a snapshot, so an answer that
// was asked for under one configuration is never given under another.
//
// Addresses that programs cannot use are changed on the way to the client only: what is remembered is the truth, and a
// name resolves as before with the reply after the VPN has gone. In place of a hidden one ([Config.Hidden]) clients get
// the virtual address that stands for it, by arithmetic ([Twin]) or leased from a [Pool]; one that is left to another
// network ([Config.Withheld]) is taken out. What clients get is made once per answer and configuration and remembered
// with the answer; only leases are renewed with every reply. Reverse names of virtual addresses are answered with the
// names of the real ones. [Server.Trace] sends its questions the same way and tells what was found at each step.
//
// Where addresses of the cluster are reached through a pod of a workload ([Agent]), that pod's view of them counts: the
// gateway's answer is completed by what the agents say that are the way to its addresses, before anything else happens
// to it; names in the suffixes of an agent are asked of that one alone.
//
// The cluster may not name this host's own addresses, nor virtual ones. Where its own prefixes hold such addresses
// ([Twin].Real, [Agent].Subnets) they are remembered, and those of the host given as virtual addresses only.
//
// The pool belongs to whoever made it: this package neither opens nor closes it, nor does it configure what becomes of
// packets to virtual addresses.
//
// The package does not configure the host to use the resolver; package hostdns does. The words are those of RFC 9499.
package dns
