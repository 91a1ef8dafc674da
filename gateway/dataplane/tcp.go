package dataplane

import (
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/culvert-dev/culvert/internal/packet"
)

// fromPeerTCP takes a TCP segment of a Peer. Everything but new SYNs is the stack's business.
func (p *Plane) fromPeerTCP(in *inbound, m *merger) {
	t, ok := packet.ParseTCP(in.payload())
	if !ok {
		p.metrics.drop(dropMalformed)
		return
	}
	switch f := t.Flags; {
	case f&packet.FlagSYN == 0 || f&packet.FlagACK != 0:
		m.inject(in.bytes)
	case f&(packet.FlagRST|packet.FlagFIN) != 0: // no stack sends these with a SYN
		p.metrics.drop(dropMalformed)
	default:
		m.flush() // what the stack knows decides what becomes of a SYN
		p.fromPeerSYN(in, t, 0)
	}
}

// fromPeerSYN takes a SYN: a new connection, a repetition, or a port pair used again. tries counts how
// often it was put off.
func (p *Plane) fromPeerSYN(in *inbound, t packet.TCPHeader, tries int) {
	key := flowKey{TCP, addrPort(in.header.Src, t.SrcPort), addrPort(in.header.Dst, t.DstPort)}
	switch p.earlier(in, key, tries) {
	case keepSYN, dropSYN:
		return
	case giveSYN:
		p.link.inject(in.bytes)
		return
	case delaySYN:
		p.delay(in, t, tries)
		return
	}
	to, r := p.decide(in.peer, TCP, key.src.Addr(), key.dst)
	if r == refused || r == nowhere || r == toGateway && (key.dst.Port() != dnsPort || p.dns == nil) {
		p.refuse(in, t, r)
		return
	}
	f := &tcpFlow{plane: p, peer: in.peer, key: key, to: to, syn: slices.Clone(in.bytes), local: r == toGateway}
	if !in.peer.addTCP(f) {
		p.metrics.result(TCP, resultLimit)
		p.reset(in, t)
		return
	}
	if f.local {
		f.enterStack()
		return
	}
	go f.dial() // counted by addTCP
}

// refuse answers a SYN that may not pass, or to a port of the gateway where nobody listens.
func (p *Plane) refuse(in *inbound, t packet.TCPHeader, r route) {
	switch r {
	case nowhere:
		p.metrics.result(TCP, resultUnreachable)
		p.answerError(in, packet.HostUnreachable)
		return
	case toGateway:
		p.metrics.result(TCP, resultRefused)
	default:
		p.metrics.result(TCP, resultDenied)
	}
	p.reset(in, t)
}

// reset answers a segment by RST.
func (p *Plane) reset(in *inbound, t packet.TCPHeader) {
	b := newBuffer()
	*b = packet.AppendReset(*b, in.header, t)
	p.send(b, false)
}

// addTCP enters f among the flows of its Peer, if no limit forbids it and its destination still stands for
// the same, and counts the goroutine that dials.
func (pr *peer) addTCP(f *tcpFlow) bool {
	p := f.plane
	pr.mu.Lock()
	defer pr.mu.Unlock()
	limits := p.cfg.Limits
	if pr.gone || pr.real(f.key.dst) != f.to || pr.tcp[f.key] != nil || len(pr.tcp)+len(pr.dgrams) >= limits.FlowsPerPeer ||
		!f.local && pr.dialing >= limits.DialsPerPeer || !p.acquire(TCP) {
		return false
	}
	pr.tcp[f.key] = f
	f.touch()
	if !f.local {
		pr.dialing++
		p.wg.Add(1)
	}
	return true
}

// tcpFlow returns the flow for key, nil when there is none.
func (pr *peer) tcpFlow(key flowKey) *tcpFlow {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.tcp[key]
}

// accept is called by the stack's forwarder, in a goroutine of its own, for a SYN that
// [tcpFlow.enterStack] let in. It completes the client's handshake and joins the two connections.
func (p *Plane) accept(r *tcp.ForwarderRequest) {
	id := r.ID()
	key := flowKey{TCP, addrPort(toAddr(id.RemoteAddress), id.RemotePort), addrPort(toAddr(id.LocalAddress), id.LocalPort)}
	var f *tcpFlow
	if pr := p.peers.Load().byNode[key.src.Addr()]; pr != nil {
		f = pr.tcpFlow(key)
	}
	if f == nil || !f.enter() {
		r.Complete(true)
		return
	}
	defer p.wg.Done()
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	r.Complete(false)
	if err != nil { // the client gave up, or answered by RST
		p.metrics.result(TCP, resultAborted)
		f.abort()
		return
	}
	f.open(ep, &wq)
}
