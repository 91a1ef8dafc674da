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
// # Twins
//
// A destination in a twin ([PeerAddrs].Twins) is translated where its flow is decided, and only there: egress
// judges, and the socket is connected to, the real address, while the flow keeps the twin in its key
// (flowKey). All that goes back is made from the key or quotes the Peer's own packet, so it carries the twin
// by itself and no packet is ever rewritten. Flows to a server by its own address and by its twin do not
// meet, which a rewriting of source addresses packet by packet could not keep apart: answers of one server
// look the same whatever they answer. A kernel does the same with connection tracking and one map of
// prefixes per Peer, see package twins.
//
// What is in the range of twins (240.0.0.0/4, fc00::/7), no twin and not permitted as itself is unreachable
// at once: nobody waits for a twin that has gone.
//
// # One way
//
// Nothing is sent to a Peer but answers within flows that the Peer opened, and the ICMP errors and
// resets they earned. Removing a Peer with [Plane.SetPeers] ends its flows at once.
//
// # Ownership
//
// A Peer owns its flows in a table under its mutex; a flow owns its socket and its goroutines, which
// end when the flow is closed: by either side, by silence, by removal of the Peer, by a change of its twins
// that leads the flow elsewhere or by [Plane.Close], which waits for all of them.
//
// What the package does not do: WireGuard and its AllowedIPs, deciding what a Peer may reach, DNS.
package dataplane
