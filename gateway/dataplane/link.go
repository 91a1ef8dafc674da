package dataplane

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/culvert-dev/culvert/internal/packet"
)

// link is the network interface of the stack: what goes in comes from Peers, what comes out goes to
// the queue.
type link struct {
	mtu        uint32
	out        *queue
	metrics    *Metrics
	dispatcher atomic.Pointer[stack.NetworkDispatcher]

	muteMu sync.Mutex              // held by withoutReset, one at a time
	muted  atomic.Pointer[flowKey] // the flow whose resets are swallowed
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

// inject hands a copy of the IP packet b to the stack.
func (l *link) inject(b []byte) {
	d, proto := l.dispatch(b)
	if d == nil {
		return
	}
	pkt := newPacket(b)
	d.DeliverNetworkPacket(proto, pkt)
	pkt.DecRef()
}

// dispatch returns who takes the IP packet b in the stack, nil when nobody does, and as which protocol.
func (l *link) dispatch(b []byte) (stack.NetworkDispatcher, tcpip.NetworkProtocolNumber) {
	d := l.dispatcher.Load()
	if d == nil {
		return nil, 0
	}
	if b[0]>>4 == 6 {
		return *d, header.IPv6ProtocolNumber
	}
	return *d, header.IPv4ProtocolNumber
}

func newPacket(b []byte) *stack.PacketBuffer {
	return stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
}

// WritePackets queues packets for Peers. It waits while the queue is full, so that a fast sender is
// slowed down here rather than made to retransmit.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	muted := l.muted.Load()
	for _, pkt := range pkts.AsSlice() {
		if muted != nil && isReset(pkt, muted) {
			continue
		}
		if !l.out.push(outbound{stack: pkt.IncRef()}, true) {
			l.metrics.drop(dropBusy)
		}
	}
	return pkts.Len(), nil
}

// withoutReset runs do, during which the stack's resets for the flow key are swallowed.
func (l *link) withoutReset(key flowKey, do func()) {
	l.muteMu.Lock()
	defer l.muteMu.Unlock()
	l.muted.Store(&key)
	defer l.muted.Store(nil)
	do()
}

// isReset reports whether pkt is a TCP reset to the Peer's end of the flow.
func isReset(pkt *stack.PacketBuffer, key *flowKey) bool {
	t := header.TCP(pkt.TransportHeader().Slice())
	if len(t) < packet.TCPHeaderLen || t.Flags()&header.TCPFlagRst == 0 {
		return false
	}
	return t.DestinationPort() == key.src.Port() && t.SourcePort() == key.dst.Port() &&
		toAddr(pkt.Network().DestinationAddress()) == key.src.Addr() &&
		toAddr(pkt.Network().SourceAddress()) == key.dst.Addr()
}

func (l *link) Attach(d stack.NetworkDispatcher) { l.dispatcher.Store(&d) }
func (l *link) IsAttached() bool {
	d := l.dispatcher.Load()
	return d != nil && *d != nil
}
func (l *link) MTU() uint32 { return l.mtu }

// Capabilities spares the stack the verification of checksums: what arrives was authenticated by
// WireGuard and written by the kernel on the other side of it.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// GSOMaxSize is how many bytes the stack's TCP may hand down at once.
func (l *link) GSOMaxSize() uint32 { return stack.GVisorGSOMaxSize }

// SupportedGSO has the stack's TCP send long segments and cut them last thing: the packets that come here
// are no longer than the MTU all the same.
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.GVisorGSOSupported }

// The rest of the interface has no meaning for a link without a link layer.

func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress          { return "" }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) Wait()                                   {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (l *link) AddHeader(*stack.PacketBuffer)           {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}

// toAddr and fromAddr convert between the stack's addresses and ours.
func toAddr(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

func fromAddr(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }
