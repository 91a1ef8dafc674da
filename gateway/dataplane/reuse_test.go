package dataplane

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/culvert-dev/culvert/internal/packet"
)

// bareSegment is a TCP segment without data or options.
func bareSegment(src, dst netip.AddrPort, flags byte, seq, ack uint32) []byte {
	b := withFlags(synPacket(src, dst), flags)
	binary.BigEndian.PutUint32(b[24:], seq)
	binary.BigEndian.PutUint32(b[28:], ack)
	return b
}

// segment waits for a segment with the flag, leaving out others, and returns its sequence number.
func (r *rawPeer) segment(flag byte) (seq uint32) {
	r.t.Helper()
	for {
		if _, payload := r.answer(); payload[13]&flag != 0 {
			return binary.BigEndian.Uint32(payload[4:])
		}
	}
}

// The stack is so busy that the last segment of a connection still waits in its queue when the client,
// for which the connection is over, has used the port pair again and the SYN was put off for the last time.
func TestReusedPortIsNotRefusedByABusyStack(t *testing.T) {
	p := newPlane(t, Config{})
	r := rawJoin(t, p)
	src, dst := netip.AddrPortFrom(node4, 4000), serve(t, loopback4, echoTCP)
	key := flowKey{TCP, src, dst}
	r.send(bareSegment(src, dst, packet.FlagSYN, 1000, 0))
	seq := r.segment(packet.FlagSYN)
	r.send(bareSegment(src, dst, packet.FlagACK, 1001, seq+1))
	eventually(t, 10*time.Second, "the connection is open", func() bool { f := p.peers.Load().byNode[node4].tcpFlow(key); return f != nil && f.isOpen() })
	r.send(bareSegment(src, dst, packet.FlagFIN|packet.FlagACK, 1001, seq+1))
	fin := r.segment(packet.FlagFIN)
	ep := p.endpoint(key)
	eventually(t, 10*time.Second, "only the client's last segment is missing", func() bool {
		return p.flows.Load() == 0 && tcp.EndpointState(ep.State()) == tcp.StateLastAck
	})

	ep.LockUser() // the stack cannot process its queue
	r.send(bareSegment(src, dst, packet.FlagACK, 1002, fin+1))
	again := bareSegment(src, dst, packet.FlagSYN, 500_000, 0)
	h, err := packet.Parse(again)
	if err != nil {
		t.Fatal(err)
	}
	in := &inbound{peer: p.peers.Load().byNode[node4], header: h, bytes: again}
	syn, _ := packet.ParseTCP(in.payload())
	p.fromPeerSYN(in, syn, len(synPauses))
	ep.UnlockUser()
	eventually(t, 10*time.Second, "the earlier connection is over", func() bool { return p.endpoint(key) != ep })

	r.send(again) // the client repeats it
	for {
		_, payload := r.answer()
		if flags := payload[13]; flags&packet.FlagRST != 0 && binary.BigEndian.Uint32(payload[8:]) == 500_001 {
			t.Fatal("the new connection is refused")
		} else if flags&packet.FlagSYN != 0 {
			return
		}
	}
}
