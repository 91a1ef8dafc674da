// Package dns is the resolver of the node: it listens on the addresses of the tunnel's own interface, asks the
// cluster for the cluster's names and the host's own resolvers for everything else, and remembers the answers.
//
//	                     ┌─ cached ──────────────────────────────────────────────► withhold ─► reply
//	query ─► parse ──────┤
//	(UDP, TCP)           └─ flight (one per question) ─► Route ─┬─► gateway  ─► rewrite, filter ─┐
//	                                                            │      │ no such name            ├─► cache ─► withhold ─► reply
//	                                                            │      ▼                         │
//	                                                            └─► the host's resolvers ────────┘
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
// Addresses that are left to another network ([Config.Withheld]) are taken out on the way to the client only: what is
// remembered is the truth, and a name resolves again with the reply after the VPN has gone. [Server.Trace] sends its
// questions the same way and tells what was found at each step.
//
// The package does not configure the host to use the resolver; package hostdns does. The words are those of RFC 9499.
package dns
