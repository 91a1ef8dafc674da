// Package reach proves that prefixes of the cluster can be reached through the tunnel, and says what is in
// the way where they cannot.
//
// Each prefix is asked about with one UDP datagram to an address inside it, sent as any program would and with
// a hop limit of 1: the gateway, a router to the workstation, answers "time exceeded" (RFC 1812, section
// 5.3.1; RFC 4443, section 3.3), and nothing in the cluster gets a packet. On its way the probe is looked for
// wherever another program could have taken it:
//
//	which route? ─► send ──► (firewall) ──► TUN ──► WireGuard ──► gateway
//	   Taken        Blocked                 [Tap]                    │ Refused, or Silent
//	             socket ◄── (firewall) ◄─── TUN ◄── WireGuard ◄──────┘
//	             Working     Blocked        [Tap]
//
// A prefix that is blocked is reported. Nothing here works around another program's firewall, changes
// anything on the host, or needs a privilege. What is decided from what was seen is pure (judge.go); what asks
// the kernel is in the files of one operating system.
//
// A [Prober] keeps no state between runs. The [Tap] stays in the way of every packet; while no probe is on its
// way that costs one atomic load for each batch.
package reach
