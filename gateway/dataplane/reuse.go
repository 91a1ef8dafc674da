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
	dropSYN                 // it still is: the client repeats the SYN
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
	if ep == nil {
		return p.withoutEndpoint(f, last)
	}
	state := tcp.EndpointState(ep.State())
	switch state {
	case tcp.StateSynRecv, tcp.StateEstablished, tcp.StateCloseWait:
		return giveSYN
	case tcp.StateTimeWait:
		if f == nil {
			p.link.withoutReset(key, ep.Abort)
			return dialSYN
		}
		return p.outOfWay(f, last)
	}
	// It is closing. The client's last segment may wait in its queue, behind which a SYN would be lost.
	if !last {
		return delaySYN
	}
	// In LAST-ACK that segment ends the endpoint, which answers whatever is queued behind it by a reset:
	// the client would take its new connection for refused. Should the client never have sent it, it
	// will reset the endpoint in answer to the FIN, which is repeated.
	if state == tcp.StateLastAck {
		return dropSYN
	}
	return giveSYN
}

// withoutEndpoint is the fate of a SYN that the stack has no endpoint for.
func (p *Plane) withoutEndpoint(f *tcpFlow, last bool) synFate {
	switch {
	case f == nil:
		return dialSYN
	case !f.isOpen(): // the SYN has just entered the stack
		return giveSYN
	}
	return p.outOfWay(f, last)
}

// outOfWay deals with a flow that is over but still in the table: its goroutines will notice in a
// moment. If they do not, it is ended.
func (p *Plane) outOfWay(f *tcpFlow, last bool) synFate {
	if !last {
		return delaySYN
	}
	p.link.withoutReset(f.key, f.abort)
	return dialSYN
}

// synPauses are how long a SYN is put off, time after time.
var synPauses = [...]time.Duration{time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond}

// delay tries a SYN again a little later. The client repeats it after a second anyway.
func (p *Plane) delay(in *inbound, t packet.TCPHeader, tries int) {
	later := &inbound{peer: in.peer, header: in.header, bytes: slices.Clone(in.bytes)}
	time.AfterFunc(synPauses[tries], func() {
		if later.peer.ctx.Err() == nil {
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
