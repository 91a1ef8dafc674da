package carrier

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// loopback returns the two ends of a TCP connection.
func loopback(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

const (
	benchPacket = 1452 // a packet of 1,420 bytes inside WireGuard
	benchBatch  = 45   // what a segmented 64 KiB of TCP becomes
)

// loopbackPair is a pair of links over TCP with counting receivers.
func loopbackPair(b testing.TB, got *atomic.Int64) *pair {
	x, y := loopback(b)
	p := &pair{nodeBind: NewBind(), gatewayBind: NewBind()}
	timing := Timing{}.withDefaults()
	p.node, _ = newLink(x, p.nodeBind, p.nodeBind.endpoint(gatewayAddr), fillHello(Hello{}, "node"), timing)
	p.gateway, _ = newLink(y, p.gatewayBind, p.gatewayBind.newStreamEndpoint(), fillHello(Hello{}, "gateway"), timing)
	for _, l := range []*link{p.node, p.gateway} {
		if _, err := l.hello(nil); err != nil {
			b.Fatal(err)
		}
		l.endpoint.attach(l, false)
	}
	listen(b, p.gatewayBind, func(packet []byte, _ conn.Endpoint) { got.Add(1) })
	return p
}

// BenchmarkLink sends batches through a link over loopback TCP as fast as they arrive: b.N packets,
// none dropped. Compare with BenchmarkLoopback, the bare connection.
func BenchmarkLink(b *testing.B) {
	var got atomic.Int64
	p := loopbackPair(b, &got)
	defer p.close()
	listen(b, p.nodeBind, func([]byte, conn.Endpoint) {})
	bufs := make([][]byte, benchBatch)
	for i := range bufs {
		bufs[i] = make([]byte, benchPacket)
		bufs[i][0] = 4
	}
	b.SetBytes(benchPacket)
	b.ReportAllocs()
	b.ResetTimer()
	sent := int64(0)
	for sent < int64(b.N) {
		for sent-got.Load() > 400 { // about what the queue holds
			time.Sleep(20 * time.Microsecond)
		}
		n := min(benchBatch, int64(b.N)-sent)
		if err := p.nodeBind.Send(bufs[:n], p.node.endpoint); err != nil {
			b.Fatal(err)
		}
		sent += n
	}
	for end := time.Now().Add(5 * time.Second); got.Load() < sent; time.Sleep(20 * time.Microsecond) {
		if time.Now().After(end) {
			b.Fatalf("%d of %d packets arrived, %d dropped", got.Load(), sent, p.node.endpoint.dropped.Load())
		}
	}
}

// BenchmarkLoopback writes the same bytes, 32 KiB at a time, over a bare connection.
func BenchmarkLoopback(b *testing.B) {
	x, y := loopback(b)
	total := int64(b.N) * benchPacket
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, chunkLen)
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{y}, buf)
		done <- err
	}()
	buf := make([]byte, 32<<10)
	b.SetBytes(benchPacket)
	b.ResetTimer()
	for total > 0 {
		n := min(int64(len(buf)), total)
		if _, err := x.Write(buf[:n]); err != nil {
			b.Fatal(err)
		}
		total -= n
	}
	x.Close()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	y.Close()
}

// BenchmarkRoundTrip sends one packet there and back at a time.
func BenchmarkRoundTrip(b *testing.B) {
	x, y := loopback(b)
	p := &pair{nodeBind: NewBind(), gatewayBind: NewBind()}
	timing := Timing{}.withDefaults()
	p.node, _ = newLink(x, p.nodeBind, p.nodeBind.endpoint(gatewayAddr), fillHello(Hello{}, "node"), timing)
	p.gateway, _ = newLink(y, p.gatewayBind, p.gatewayBind.newStreamEndpoint(), fillHello(Hello{}, "gateway"), timing)
	p.node.endpoint.attach(p.node, false)
	p.gateway.endpoint.attach(p.gateway, false)
	p.node.hello(nil)
	p.gateway.hello(nil)
	defer p.close()
	listen(b, p.gatewayBind, func(packet []byte, from conn.Endpoint) { p.gatewayBind.Send([][]byte{packet}, from) })
	back := make(chan struct{}, 1)
	listen(b, p.nodeBind, func([]byte, conn.Endpoint) { back <- struct{}{} })
	packet := [][]byte{make([]byte, 96)}
	packet[0][0] = 4
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		p.nodeBind.Send(packet, p.node.endpoint)
		<-back
	}
}
