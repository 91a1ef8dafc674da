package dataplane

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// taker is a stack that keeps what it is given.
type taker struct {
	stack.NetworkDispatcher
	packets [][]byte
}

func (t *taker) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	v := pkt.ToView()
	t.packets = append(t.packets, bytes.Clone(v.AsSlice()))
	v.Release()
}

// segment returns an IPv4 packet from the source port with payload at seq.
func segment(port uint16, seq uint32, flags header.TCPFlags, payload string) []byte {
	b := make([]byte, header.IPv4MinimumSize+header.TCPMinimumSize+len(payload))
	src, dst := tcpip.AddrFrom4([4]byte{245, 0, 0, 2}), tcpip.AddrFrom4([4]byte{10, 0, 0, 1})
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: src, DstAddr: dst})
	ip.SetChecksum(^ip.CalculateChecksum())
	tcp := header.TCP(b[header.IPv4MinimumSize:])
	tcp.Encode(&header.TCPFields{SrcPort: port, DstPort: 80, SeqNum: seq, AckNum: 1, DataOffset: header.TCPMinimumSize, Flags: flags, WindowSize: 1 << 10})
	copy(tcp[header.TCPMinimumSize:], payload)
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(tcp)))
	tcp.SetChecksum(^tcp.CalculateChecksum(checksum.Checksum([]byte(payload), sum)))
	return b
}

// Connections whose segments are held in one place, all of them and more than fit: nothing stays behind,
// which would come late, or after the plane it belongs to.
func TestMergerKeepsNothing(t *testing.T) {
	for connections := 1; connections <= 64; connections++ {
		to := &taker{}
		l := &link{}
		l.Attach(to)
		m := newMerger(l)
		for i := range connections {
			m.inject(segment(uint16(8*i), 1, header.TCPFlagAck, "aaa"))
		}
		m.flush()
		if n := len(to.packets); n != connections {
			t.Fatalf("%d of %d segments arrived", n, connections)
		}
		m.release()
	}
}

func TestMerger(t *testing.T) {
	const ack, push = header.TCPFlagAck, header.TCPFlagAck | header.TCPFlagPsh
	tests := []struct {
		name string
		in   [][]byte
		want []string // payloads, in order
	}{
		{"segments in order become one", [][]byte{segment(1, 1, ack, "aaa"), segment(1, 4, ack, "bbb"), segment(1, 7, push, "c")}, []string{"aaabbbc"}},
		{"a gap keeps them apart", [][]byte{segment(1, 1, ack, "aaa"), segment(1, 7, push, "ccc")}, []string{"aaa", "ccc"}},
		{"repeated data stays by itself", [][]byte{segment(1, 4, ack, "bbb"), segment(1, 1, push, "aaa")}, []string{"bbb", "aaa"}},
		{"connections do not mix", [][]byte{segment(1, 1, ack, "aaa"), segment(2, 1, ack, "xxx"), segment(1, 4, push, "b"), segment(2, 4, push, "y")}, []string{"aaab", "xxxy"}},
		{"what has no more to follow leaves at the end of the batch", [][]byte{segment(1, 1, ack, "aaa"), segment(1, 4, ack, "bbb")}, []string{"aaabbb"}},
		{"pure acknowledgements pass", [][]byte{segment(1, 1, ack, ""), segment(1, 1, ack, "")}, []string{"", ""}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			to := &taker{}
			l := &link{}
			l.Attach(to)
			m := newMerger(l)
			for _, b := range test.in {
				m.inject(b)
			}
			m.release()
			if len(to.packets) != len(test.want) {
				t.Fatalf("%d packets, want %d", len(to.packets), len(test.want))
			}
			for i, p := range to.packets {
				if got := string(p[header.IPv4MinimumSize+header.TCPMinimumSize:]); got != test.want[i] {
					t.Errorf("packet %d carries %q, want %q", i, got, test.want[i])
				}
				if got := int(header.IPv4(p).TotalLength()); got != len(p) {
					t.Errorf("packet %d says %d bytes, has %d", i, got, len(p))
				}
			}
		})
	}
}
