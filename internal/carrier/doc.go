// Package carrier brings WireGuard's packets to the other side over byte streams, as a conn.Bind for
// wireguard-go. A stream is whatever reaches the gateway's pod: a Kubernetes port-forward, or in tests
// a pipe. The package does not open streams; the node's Keeper is given a Dial function, the
// gateway's Server a listener.
//
//	wireguard-go ──Send──► Endpoint: queue ──► link: writer ──► stream ──► link: reader ──► Bind ──► wireguard-go
//	                       (bounded, oldest     (at most window bytes   (acknowledges what
//	                        dropped)             not acknowledged)       it took)
//
// An Endpoint is what wireguard-go sees of the other side: an address that is only a name. On the node
// there is one per gateway, and the Keeper moves it from stream to stream without WireGuard
// noticing: no new handshake. On the gateway there is one per stream, and WireGuard's roaming follows
// the node from one to the next.
//
// Send never blocks: a blocked Send would stop wireguard-go's reader of the TUN, and with it every peer.
// So the queue of an endpoint is bounded in bytes, its oldest packets give way, and what waited longer
// than a second is not sent at all. Behind the queue, the bytes in flight are bounded by the receiver's
// acknowledgements (see flow), because every hop of a port-forward has buffers of its own and would
// otherwise fill them: latency under load is decided here.
//
// Ownership: a link's writer and reader goroutines own its two directions, everything they share is in
// link.mu; an Endpoint's queue is under Endpoint.mu, which is taken after link.mu. Whoever closes a
// link waits for its goroutines with link.wait.
package carrier
