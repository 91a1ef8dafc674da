// Package vnat lets programs of this host use addresses of a pool (VIPs) where they cannot use a twin itself: on
// the way between the TUN interface and WireGuard it puts the twin's address, which stands on the wire, in the
// place of the VIP, and back.
//
//	program ─► TUN ─► [Read]  dst: VIP ──lease──► real ──twin──► wire address ─► WireGuard ─► gateway
//	        ◄─ TUN ◄─ [Write] src: VIP ◄──lease── real ◄──twin── wire address ◄─ WireGuard ◄─┘
//
// An ICMP error is translated with the packet that it repeats. Fragments need no state: each has the addresses,
// and the first the checksum. What cannot be parsed passes as it is; WireGuard takes no packet to an
// address of a pool.
//
// What this host sends to an address of a pool that has no lease, or whose real address no twin holds, is
// answered with "host unreachable" at once. So is what it sends to the wire address of a pooled twin: nothing
// routes that here, and the answer would come from the VIP, to a program that waits for another address. What
// comes out of the tunnel for a lease that is gone is dropped and counted: nobody could say whom it is for.
//
// The package decides nothing: which prefixes have a pooled twin is the plan's choice, who has which VIP is the
// pool's (dns/vip). A [Device] keeps no state about flows, only the table in force, which [Device.Set] replaces as
// a whole between two batches. Without one, a batch costs one atomic load. It belongs between WireGuard and
// the Tap of node/reach, so that probes are seen as programs send them.
package vnat
