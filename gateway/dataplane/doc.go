// Package dataplane carries the packets of connected workstations (Peers) into the cluster with
// nothing but ordinary sockets: no capability, no route, no rule in the pod.
//
// wireguard-go writes decrypted packets to [Plane.TUN] and reads the replies from it. TCP is
// terminated by a gVisor stack and carried on by a connection that was dialled before the client's
// handshake is answered, so refusals, resets and time-outs are the destination's own. UDP and ICMP
// echo never enter the stack: each flow is one connected datagram or ping socket.
//
//	wireguard-go ──► Write ─► parse ─► source is a Peer's? ─► reassemble ─┬► TCP ─► decide ─► dial ─► stack ─► splice ─► socket
//	                                                                     ├► UDP ─► decide ─────────────────────────► socket
//	                                                                     └► echo ► decide ─────────────────────────► ping socket
//	wireguard-go ◄── Read ◄── destination is a Peer's? ◄── queue ◄── stack, replies of sockets, ICMP errors, resets
//
// # Who may go where
//
// Egress is decided in one place ([Plane.decide]): what the plane itself refuses, and
// what [Config].Permit allows. Every flow is asked for once, before anything is sent.
//
// # One way
//
// Nothing is sent to a Peer but answers within flows that the Peer opened, and the ICMP errors and
// resets they earned. Removing a Peer with [Plane.SetPeers] ends its flows at once.
//
// # Ownership
//
// A Peer owns its flows in a table under its mutex; a flow owns its socket and its goroutines, which
// end when the flow is closed: by either side, by silence, by removal of the Peer or by
// [Plane.Close], which waits for all of them.
//
// What the package does not do: WireGuard and its AllowedIPs, deciding what a Peer may reach, DNS.
package dataplane
