package dataplane

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Proto is what a flow speaks, by its IP protocol number. ICMP echo has one value for both families.
type Proto uint8

const (
	Echo Proto = 1
	TCP  Proto = 6
	UDP  Proto = 17
)

// String returns the name used in logs and as a metric label.
func (p Proto) String() string {
	switch p {
	case Echo:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Verdict is the answer of [Config].Permit. The zero value denies.
type Verdict uint8

const (
	// Deny refuses the flow: TCP is answered by RST, the rest by ICMP "administratively prohibited".
	Deny Verdict = iota
	// Allow lets the flow go to any ordinary unicast address. Loopback, link-local (cloud metadata)
	// and the addresses of the gateway's own interfaces stay refused.
	Allow
	// AllowReserved lets it go also to loopback, link-local and the gateway's own addresses. It is
	// for destinations that an administrator listed by name and for agents, which may dial the
	// loopback of their pod. Other Peers, multicast, broadcast and unspecified addresses stay refused.
	AllowReserved
)

// LocalService answers what Peers send to port 53 of their gateway address. It is called once, in a
// goroutine of its own, and must return after the plane has closed both; [Plane.Close] waits for it.
//
// The listener's connections have the Peer's node address as RemoteAddr and the gateway's as
// LocalAddr. Addresses on the packet connection are *net.UDPAddr of the node; a datagram written to
// one leaves from port 53 of that Peer's gateway address. github.com/miekg/dns serves on both as
// they are.
type LocalService func(streams net.Listener, datagrams net.PacketConn)

// Config of a [Plane].
type Config struct {
	// MTU is the size in bytes of the largest IP packet exchanged with Peers; 0 means 1420. It must
	// be at least 1280 (RFC 8200).
	MTU int
	// Permit is asked once per flow, and once per ICMP echo flow, whether peer (its node address) may
	// reach dst (port 0 for echo). It is called from many goroutines and must not block. Required.
	// The plane itself refuses more, see [Verdict].
	Permit func(peer netip.Addr, proto Proto, dst netip.AddrPort) Verdict
	// ServeDNS answers port 53 of the gateway's addresses; nil refuses it like every other port there.
	ServeDNS LocalService
	// Log gets rare events, never one line per flow or packet; nil discards them.
	Log *slog.Logger
	// Metrics are counted into; nil counts for nobody. See [NewMetrics].
	Metrics *Metrics
	// Limits bound what Peers may hold; zero fields take their defaults.
	Limits Limits
	// Timeouts are how long silence is kept; zero fields take their defaults.
	Timeouts Timeouts
}

// Limits of resources. A flow beyond a limit is refused at once: TCP by RST, UDP by ICMP.
type Limits struct {
	// FlowsPerPeer bounds the TCP, UDP and echo flows of one Peer together; 0 means 16,384.
	FlowsPerPeer int
	// DialsPerPeer bounds its TCP connections that are still being dialled; 0 means 4,096.
	DialsPerPeer int
	// EchoPerPeer bounds its ICMP echo flows (one per running ping); 0 means 256.
	EchoPerPeer int
	// Flows bounds the flows of all Peers. 0 means what the process's descriptor limit allows
	// (RLIMIT_NOFILE less a reserve, at most 262,144); a larger number is lowered to that.
	Flows int
}

// Timeouts after which silence ends something.
type Timeouts struct {
	// Dial is how long a destination may take to answer a TCP handshake; 0 means 30 s. At its end
	// the client gets ICMP "host unreachable".
	Dial time.Duration
	// TCP is the silence after which both ends of an established connection are probed; 0 means 2 h.
	// A connection whose client answers no probe within Transitory ends (RFC 5382, REQ-5).
	TCP time.Duration
	// Transitory is how long a half-closed TCP connection may stay silent; 0 means 4 min (RFC 5382).
	Transitory time.Duration
	// UDP is how long a UDP flow may stay silent; 0 means 3 min (RFC 4787, REQ-5: 2 min or more).
	UDP time.Duration
	// UDPQuick is the same for flows to port 53 (RFC 4787 lets well-known ports be shorter); 0 means 20 s.
	UDPQuick time.Duration
	// Echo is how long a ping may pause; 0 means 60 s (RFC 5508, REQ-2).
	Echo time.Duration
}

// maxFlows bounds the flows of all Peers where descriptors do not.
const maxFlows = 1 << 18

// minMTU is what IPv6 asks of every link (RFC 8200, section 5).
const minMTU = 1280

func (c Config) withDefaults() (Config, error) {
	setDefault(&c.MTU, 1420)
	if c.MTU < minMTU || c.MTU > 65535 {
		return c, fmt.Errorf("data plane: MTU %d: accepted are %d to 65535", c.MTU, minMTU)
	}
	if c.Permit == nil {
		return c, fmt.Errorf("data plane: no Permit function: without it nothing bounds the egress")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	setDefault(&c.Limits.FlowsPerPeer, 16384)
	setDefault(&c.Limits.DialsPerPeer, 4096)
	setDefault(&c.Limits.EchoPerPeer, 256)
	setDefault(&c.Timeouts.Dial, 30*time.Second)
	setDefault(&c.Timeouts.TCP, 2*time.Hour)
	setDefault(&c.Timeouts.Transitory, 4*time.Minute)
	setDefault(&c.Timeouts.UDP, 3*time.Minute)
	setDefault(&c.Timeouts.UDPQuick, 20*time.Second)
	setDefault(&c.Timeouts.Echo, time.Minute)
	return c, nil
}

// setDefault gives *v the value d when it is zero.
func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
