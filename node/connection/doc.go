// Package connection is the user half of a connection: it owns the tunnel from `culvert connect` to
// the end, without any privilege.
//
//	kubeconfig ─┐
//	Policy ─────┼─► settings ─┐
//	files, flags┘             ├─► policy.Plan ─► helper.Apply ─► the host
//	host's routes ────────────┘        │
//	                                   └─► WireGuard's AllowedIPs, the resolver's zones
//	Peer.status (which gateway, which key) ─► WireGuard's peer, the carrier
//
// One goroutine, [Session.run], owns all state; watches, the carrier and the helper send it events,
// and others read immutable snapshots. What needs root is asked of package helper over a socket;
// when that socket closes, whatever the reason, this process has nothing left to do and ends.
package connection
