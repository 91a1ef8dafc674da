// Package hostnet makes the host's network carry a connection: a TUN interface, its addresses, a
// routing table of our own reached by one rule per family, and a filter that lets nothing in the
// cluster open a connection to the host.
//
//	desired State ──┐
//	                ├─► Plan ──► Set ──► Host.Do ──► kernel
//	Host.Read ──────┘  (pure)   (in order)             │
//	    ▲──────────────────────────────────────────────┘
//
// A [Change] prints as the ip, sysctl or nft command that does the same. Everything of ours carries a
// mark: the interface an alias, routes and rules the protocol number 202, the filter a table name.
// Nothing without the mark is read as ours, changed or removed, and the main table is never edited.
//
// The package owns no state; the kernel has it. It does not decide what to route (package policy), nor
// check who asks (node/helper), nor touch the resolver (dns/hostdns).
package hostnet
