// Package dnsforward answers the DNS questions of Peers by asking the nameservers of the gateway's own
// pod, which are the cluster's.
//
//	Peer ──► data plane ──► Forwarder.Serve ──► (limits) ──► line ──► nameserver
//	     ◄──                                    ◄─────────── id ◄──
//
// Messages pass unchanged but for their id: every record type, EDNS0 option and the truncation bit
// stay what the two ends made of them. A question that came by UDP is asked by UDP and one that came
// by TCP by TCP; retrying a truncated answer is left to whoever asked. Nothing is cached: the node
// does that, and knows when to forget.
//
// Sockets towards the nameservers are shared and kept (see line), so that a question costs one round
// trip. A Forwarder owns all its sockets and goroutines; Close ends and waits for them.
package dnsforward
