package dataplane

import (
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/culvert-dev/culvert/internal/packet"
)

// datagramFlow is a UDP or ICMP echo flow of a Peer: one connected socket and one goroutine that
// reads the answers. Its mapping and filtering are those of its one destination, so nothing but that
// destination can send through it.
type datagramFlow struct {
	plane *Plane
	peer  *peer
	key   flowKey
	to    netip.AddrPort // where it is sent: what key.dst stands for
	sock  *datagramSocket
	// idle is how long the flow may stay silent; active is when a datagram last passed (Unix
	// nanoseconds).
	idle   time.Duration
	active atomic.Int64
	// first is the start of the packet that opened the flow, which ICMP errors quote.
	first  []byte
	header packet.Header
	closed atomic.Bool
}

// quoteLen is how much of a packet an ICMP error about its flow needs: the headers, options included.
const quoteLen = 128

// datagramFlow returns the flow for the packet in, opening it if it is new. It returns nil when the
// packet was answered otherwise.
func (p *Plane) datagramFlow(in *inbound, key flowKey) *datagramFlow {
	in.peer.mu.Lock()
	f := in.peer.dgrams[key]
	in.peer.mu.Unlock()
	if f != nil {
		return f
	}
	switch to, r := p.decide(in.peer, key.proto, key.src.Addr(), key.dst); r {
	case toNetwork:
		return p.openDatagramFlow(in, key, to)
	case nowhere:
		p.metrics.result(key.proto, resultUnreachable)
		p.answerError(in, packet.HostUnreachable)
	default:
		p.metrics.result(key.proto, resultDenied)
		p.answerError(in, packet.Prohibited)
	}
	return nil
}

func (p *Plane) openDatagramFlow(in *inbound, key flowKey, to netip.AddrPort) *datagramFlow {
	if !p.acquire(key.proto) {
		p.overLimit(in, key.proto)
		return nil
	}
	sock, err := openSocket(key.proto, to)
	if err != nil {
		p.release(key.proto)
		p.socketFailed(in, key.proto, err)
		return nil
	}
	f := &datagramFlow{plane: p, peer: in.peer, key: key, to: to, sock: sock, idle: p.idleTime(key), header: in.header,
		first: slices.Clone(in.bytes[:min(len(in.bytes), quoteLen)])}
	f.touch()
	if kept := in.peer.addDatagram(f); kept != f {
		sock.close()
		p.release(key.proto)
		if kept == nil {
			p.overLimit(in, key.proto)
		}
		return kept
	}
	p.metrics.result(key.proto, resultOpen)
	return f
}

func openSocket(proto Proto, to netip.AddrPort) (*datagramSocket, error) {
	if proto == Echo {
		return openPing(to.Addr())
	}
	return openUDP(to)
}

func (p *Plane) idleTime(key flowKey) time.Duration {
	switch {
	case key.proto == Echo:
		return p.cfg.Timeouts.Echo
	case key.dst.Port() == dnsPort:
		return p.cfg.Timeouts.UDPQuick
	}
	return p.cfg.Timeouts.UDP
}

// overLimit tells the client that it has too many flows. For UDP there is no better word than
// "prohibited"; echo stays unanswered.
func (p *Plane) overLimit(in *inbound, proto Proto) {
	p.metrics.result(proto, resultLimit)
	if proto == UDP {
		p.answerError(in, packet.Prohibited)
	}
}

func (p *Plane) socketFailed(in *inbound, proto Proto, err error) {
	if proto == Echo && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)) {
		p.pings.forbidden(p.cfg.Log, err)
		p.metrics.result(Echo, resultError)
		return
	}
	a := answerTo(err)
	p.metrics.result(proto, a.result)
	p.answerError(in, a.reason)
}

// addDatagram enters f among the flows of its Peer and starts its reader. It returns the flow that is
// there: f, one that was quicker, or nil when a limit forbids it or its destination no longer stands for the
// same.
func (pr *peer) addDatagram(f *datagramFlow) *datagramFlow {
	limits := f.plane.cfg.Limits
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if other := pr.dgrams[f.key]; other != nil {
		return other
	}
	if pr.gone || pr.real(f.key.dst) != f.to || len(pr.tcp)+len(pr.dgrams) >= limits.FlowsPerPeer || f.key.proto == Echo && pr.echoes >= limits.EchoPerPeer {
		return nil
	}
	pr.dgrams[f.key] = f
	if f.key.proto == Echo {
		pr.echoes++
	}
	f.plane.wg.Go(f.read)
	return f
}

// touch notes that the flow is alive.
func (f *datagramFlow) touch() { f.active.Store(time.Now().UnixNano()) }

// send sends b to the destination. It never waits.
func (f *datagramFlow) send(b []byte) {
	f.touch()
	err := f.sock.send(b)
	if errors.Is(err, syscall.ECONNREFUSED) { // the fate of an earlier datagram; this one was not sent
		f.failed(err)
		err = f.sock.send(b)
	}
	switch {
	case err == nil:
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOBUFS):
		f.plane.metrics.drop(dropBusy)
	default:
		f.failed(err)
	}
}

// failed tells the client about an error that the socket reported.
func (f *datagramFlow) failed(err error) {
	if f.closed.Load() {
		return
	}
	f.plane.sendError(f.peer, f.first, f.header, answerTo(err).reason)
}

// read passes answers on until the flow is closed.
func (f *datagramFlow) read() {
	for {
		err := f.sock.receive(f.received)
		var errno syscall.Errno
		switch {
		case f.closed.Load():
			return
		case errors.As(err, &errno): // an ICMP error that came back; the socket goes on
			f.failed(err)
		case err != nil:
			f.plane.cfg.Log.Warn("data plane: socket of a flow failed", "protocol", f.key.proto, "to", f.to, "err", err)
			f.close()
			return
		}
	}
}

// received takes one datagram from the socket; b is not kept.
func (f *datagramFlow) received(b []byte) {
	f.touch()
	if f.key.proto == UDP {
		f.plane.sendUDP(f.key.dst, f.key.src, b)
		return
	}
	if e, ok := packet.ParseEchoReply(b, f.key.dst.Addr().Is4()); ok {
		e.ID = f.key.src.Port()
		f.plane.sendEcho(f.key.dst.Addr(), f.key.src.Addr(), e)
	}
}

// close ends the flow. It may be called more than once.
func (f *datagramFlow) close() {
	if f.closed.Swap(true) {
		return
	}
	f.sock.close()
	f.peer.mu.Lock()
	if f.peer.dgrams[f.key] == f {
		delete(f.peer.dgrams, f.key)
	}
	if f.key.proto == Echo {
		f.peer.echoes--
	}
	f.peer.mu.Unlock()
	f.plane.release(f.key.proto)
}
