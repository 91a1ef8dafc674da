package dataplane

import (
	"slices"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/culvert-dev/culvert/internal/packet"
)

// synFate is what becomes of a SYN, given what is left of an earlier connection of its port pair.
type synFate uint8

const (
	dialSYN  synFate = iota // the port pair is free: a new connection
	keepSYN                 // it is being dialled; the SYN waits for that
	giveSYN                 // the stack answers: SYN-ACK again, or a challenge ACK (RFC 5961)
	delaySYN                // the earlier connection is about to end: look again in a moment
)

// earlier looks for an earlier connection of the port pair key.
//
// The stack drops a SYN that finds its endpoint in TIME_WAIT, since there is no listening socket it
// could hand it to, so a loop of short connections would seize up. Such an endpoint is ended here
// (RFC 1122, 4.2.2.13 allows it; old duplicates do not exist behind WireGuard). Its reset stays inside:
// a connection tracker on the workstation would take it for the new connection's.
//
// Segments are processed by other goroutines, so an endpoint may be on its way to TIME_WAIT, or a flow
// on its way out of the table, while the client knows that both are over. Those SYNs are put off.
func (p *Plane) earlier(in *inbound, key flowKey, tries int) synFate {
	f := in.peer.tcpFlow(key)
	if f != nil && f.waits(in.bytes) {
		return keepSYN
	}
	ep := p.endpoint(key)
	last := tries == len(synPauses)
	switch {
	case f == nil && ep == nil:
		return dialSYN
	case f == nil && over(ep):
		p.link.withoutReset(key, ep.Abort)
		return dialSYN
	case f == nil && last, f != nil && !f.isOpen(), f != nil && ep != nil && !over(ep):
		return giveSYN
	case f != nil && last:
		p.link.withoutReset(key, f.abort)
		return dialSYN
	}
	return delaySYN
}

// over reports whether the stack keeps ep only for stray segments.
func over(ep *tcp.Endpoint) bool {
	return tcp.EndpointState(ep.State()) == tcp.StateTimeWait
}

// synPauses are how long a SYN is put off, time after time.
var synPauses = [...]time.Duration{time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond}

// delay tries a SYN again a little later. The client repeats it after a second anyway.
func (p *Plane) delay(in *inbound, t packet.TCPHeader, tries int) {
	later := &inbound{peer: in.peer, header: in.header, bytes: slices.Clone(in.bytes)}
	time.AfterFunc(synPauses[tries], func() {
		if in.peer.ctx.Err() == nil {
			p.fromPeerSYN(later, t, tries+1)
		}
	})
}

// endpoint returns the stack's endpoint for a flow, nil when it has none.
func (p *Plane) endpoint(key flowKey) *tcp.Endpoint {
	id := stack.TransportEndpointID{
		LocalPort: key.dst.Port(), LocalAddress: fromAddr(key.dst.Addr()),
		RemotePort: key.src.Port(), RemoteAddress: fromAddr(key.src.Addr()),
	}
	proto := header.IPv6ProtocolNumber
	if key.src.Addr().Is4() {
		proto = header.IPv4ProtocolNumber
	}
	ep, _ := p.stack.FindTransportEndpoint(proto, tcp.ProtocolNumber, id, nicID).(*tcp.Endpoint)
	return ep
}
