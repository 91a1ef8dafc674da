// Package tunnel is the packet path of one pod, put together: WireGuard behind the carrier on one side, the
// data plane's sockets and the DNS forwarder on the other. The gateway and an agent are this and whoever tells
// it which [Peer]s to serve.
//
//	port-forward ──► carrier ──► wgdev ──► dataplane ──► sockets of the pod
//	                                           └──► dnsforward ──► the pod's nameservers
//
// A [Tunnel] owns its parts and its key, which is made in memory and never leaves it. [Apply] keeps the order in
// which device and data plane take up Peers and let go of them. Who is a Peer, and what each may reach, is
// decided elsewhere.
package tunnel
