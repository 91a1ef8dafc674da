package dataplane

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/culvert-dev/culvert/internal/packet"
)

// tcpFlow is one TCP connection of a Peer.
//
//	SYN ──► dialing ──► handshake ──► open ──► ended
//	           │            │                    ▲
//	           └────────────┴────────────────────┘   refused, given up, Peer removed
//
// While dialing, the stack does not know of the flow; the SYN waits in syn. Once the destination has
// answered, the SYN enters the stack, whose forwarder calls [Plane.accept].
type tcpFlow struct {
	plane *Plane
	peer  *peer
	key   flowKey
	to    netip.AddrPort // where it is dialled: what key.dst stands for
	local bool           // for the gateway's own port 53: nothing is dialled

	// active is when data last moved (Unix nanoseconds); halfClosed is set once one side has sent its
	// FIN, serverEnded once the destination has.
	active                  atomic.Int64
	halfClosed, serverEnded atomic.Bool
	into                    tcpip.SliceWriter // for toServer alone

	mu     sync.Mutex
	syn    []byte         // the newest SYN of the client, until it entered the stack
	server *net.TCPConn   // nil while dialing and for local flows
	client tcpip.Endpoint // set once open
	ended  bool
}

// touch notes that the flow is alive.
func (f *tcpFlow) touch() { f.active.Store(time.Now().UnixNano()) }

// waits reports whether f is being dialled. The SYN is then the client's newest word: it may have
// given up meanwhile and begun anew from the same port.
func (f *tcpFlow) waits(syn []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.syn == nil || f.ended {
		return false
	}
	f.syn = append(f.syn[:0], syn...)
	return true
}

// isOpen reports whether the client's handshake was completed.
func (f *tcpFlow) isOpen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.client != nil
}

// dial connects to the destination and then lets the client's SYN into the stack.
func (f *tcpFlow) dial() {
	defer f.plane.wg.Done()
	conn, err := f.connect()
	f.peer.mu.Lock()
	f.peer.dialing--
	f.peer.mu.Unlock()
	if err != nil {
		f.failed(err)
		return
	}
	f.mu.Lock()
	f.server = conn
	ended := f.ended
	f.mu.Unlock()
	if ended {
		resetServer(conn)
		return
	}
	f.enterStack()
}

// Probes of the destination. Its silence ends a flow as it would end the client's own connection, so
// they begin late and go on for 3 minutes.
var serverKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: 30 * time.Second, Count: 6}

func (f *tcpFlow) connect() (*net.TCPConn, error) {
	d := net.Dialer{Timeout: f.plane.cfg.Timeouts.Dial, KeepAliveConfig: serverKeepAlive, Control: shareAddress}
	conn, err := d.DialContext(f.peer.ctx, "tcp", f.to.String())
	for range portTries {
		if !errors.Is(err, syscall.EADDRNOTAVAIL) {
			break
		}
		d.LocalAddr = &net.TCPAddr{Port: firstPort + rand.IntN(1<<16-firstPort)}
		conn, err = d.DialContext(f.peer.ctx, "tcp", f.to.String())
	}
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// When clients close first, their port pairs towards one destination stay in the kernel's TIME_WAIT for
// a minute, and its choice of 28,000 source ports can run out. A port chosen here may be one of those:
// the kernel reopens the pair when the socket names the port itself, shares addresses (SO_REUSEADDR,
// like every socket dialled here) and both ends use timestamps.
const (
	portTries = 16
	firstPort = 1024
)

// enterStack lets the waiting SYN into the stack, which will call [Plane.accept].
func (f *tcpFlow) enterStack() {
	f.mu.Lock()
	syn := f.syn
	f.syn = nil
	f.mu.Unlock()
	if syn != nil {
		f.plane.link.inject(syn)
	}
}

// enter counts the goroutine of [Plane.accept], unless the flow has ended meanwhile.
func (f *tcpFlow) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended || f.client != nil {
		return false
	}
	f.plane.wg.Add(1)
	return true
}

// failed answers the client by what the dial ran into.
func (f *tcpFlow) failed(err error) {
	f.mu.Lock()
	syn, ended := f.syn, f.ended
	f.mu.Unlock()
	answer := answerTo(err)
	f.plane.metrics.result(TCP, answer.result)
	f.abort() // before the answer: a SYN that follows it begins anew
	h, parseErr := packet.Parse(syn)
	if ended || answer.silent || parseErr != nil { // what ended it may have made room for another of its key
		return
	}
	in := &inbound{peer: f.peer, header: h, bytes: syn}
	if !answer.reset {
		f.plane.answerError(in, answer.reason)
		return
	}
	if t, ok := packet.ParseTCP(in.payload()); ok {
		f.plane.reset(in, t)
	}
}

// open joins the client's connection, whose handshake is complete, with the destination's.
func (f *tcpFlow) open(ep tcpip.Endpoint, wq *waiter.Queue) {
	f.mu.Lock()
	if f.ended {
		f.mu.Unlock()
		ep.Abort()
		return
	}
	f.client = ep
	f.mu.Unlock()
	f.touch()
	f.plane.metrics.result(TCP, resultOpen)
	f.keepAlive(ep)
	if f.local {
		f.plane.dns.streams.deliver(newLocalConn(f, ep, wq))
		return
	}
	f.splice(wq)
}

// clientProbes is how often the client is probed within Timeouts.Transitory, after Timeouts.TCP of
// silence (RFC 5382, REQ-5: 2 h and 4 min together).
const clientProbes = 4

func (f *tcpFlow) keepAlive(ep tcpip.Endpoint) {
	idle := tcpip.KeepaliveIdleOption(f.plane.cfg.Timeouts.TCP)
	interval := tcpip.KeepaliveIntervalOption(f.plane.cfg.Timeouts.Transitory / clientProbes)
	_ = ep.SetSockOpt(&idle) // none of the three can fail on a TCP endpoint
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, clientProbes)
	ep.SocketOptions().SetKeepAlive(true)
}

// abort ends f at once, resetting both connections. It may be called at any time, more than once.
func (f *tcpFlow) abort() { f.end(true) }

// end closes both connections, by resets if reset is set, and forgets the flow.
func (f *tcpFlow) end(reset bool) {
	f.mu.Lock()
	if f.ended {
		f.mu.Unlock()
		return
	}
	f.ended = true
	server, client := f.server, f.client
	f.mu.Unlock()
	if server != nil && reset {
		resetServer(server)
	} else if server != nil {
		_ = server.Close()
	}
	switch {
	case client == nil: // perhaps in the middle of its handshake
		if ep := f.plane.endpoint(f.key); ep != nil {
			ep.Abort()
		}
	case reset:
		client.Abort()
	default:
		client.Close()
	}
	f.forget()
}

// forget takes f out of the Peer's table.
func (f *tcpFlow) forget() {
	f.peer.mu.Lock()
	if f.peer.tcp[f.key] == f {
		delete(f.peer.tcp, f.key)
	}
	f.peer.mu.Unlock()
	f.plane.release(TCP)
}

// resetServer closes conn by RST, as a client that resets its connection would.
func resetServer(conn *net.TCPConn) {
	_ = conn.SetLinger(0) // fails only when conn is closed already
	_ = conn.Close()
}
