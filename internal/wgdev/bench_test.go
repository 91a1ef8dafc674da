//go:build unix

package wgdev_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/internal/wgdev"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

const (
	benchMTU    = 1420
	benchWindow = 400 // packets between sender and receiver, as a TCP window
	tunBatch    = 45  // one segmented 64 KiB
)

// benchTUN makes packets as long as the other end has room, and counts those it is given.
type benchTUN struct {
	events chan tun.Event
	closed chan struct{}
	once   sync.Once
	packet []byte
	quota  atomic.Int64 // packets to make in all
	made   atomic.Int64
	got    atomic.Int64
	other  *benchTUN
}

func newBenchTUN(src, dst netip.Addr) *benchTUN {
	p := make([]byte, benchMTU)
	p[0], p[2], p[3], p[8], p[9] = 0x45, benchMTU>>8, benchMTU&0xff, 64, 17
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	return &benchTUN{events: make(chan tun.Event), closed: make(chan struct{}), packet: p}
}

func (b *benchTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		n := min(b.quota.Load()-b.made.Load(), benchWindow-(b.made.Load()-b.other.got.Load()), tunBatch)
		if n > 0 {
			for i := range n {
				sizes[i] = copy(bufs[i][offset:], b.packet)
			}
			b.made.Add(n)
			return int(n), nil
		}
		select {
		case <-b.closed:
			return 0, os.ErrClosed
		case <-time.After(20 * time.Microsecond):
		}
	}
}

func (b *benchTUN) Write(bufs [][]byte, _ int) (int, error) {
	b.got.Add(int64(len(bufs)))
	return len(bufs), nil
}

func (b *benchTUN) File() *os.File           { return nil }
func (b *benchTUN) MTU() (int, error)        { return benchMTU, nil }
func (b *benchTUN) Name() (string, error)    { return "bench", nil }
func (b *benchTUN) Events() <-chan tun.Event { return b.events }
func (b *benchTUN) BatchSize() int           { return conn.IdealBatchSize }
func (b *benchTUN) Close() error {
	b.once.Do(func() { close(b.closed); close(b.events) })
	return nil
}

// benchTunnel measures packets through two devices over the given binds.
func benchTunnel(b *testing.B, nodeBind, gatewayBind conn.Bind, at *net.UDPAddr, gatewayPort int) {
	keys := []wgtypes.Key{key(b), key(b)}
	tuns := []*benchTUN{newBenchTUN(nodeAddr, gatewayAddr), newBenchTUN(gatewayAddr, nodeAddr)}
	tuns[0].other, tuns[1].other = tuns[1], tuns[0]
	for i, bind := range []conn.Bind{nodeBind, gatewayBind} {
		d, err := wgdev.New(tuns[i], bind, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer d.Close()
		config := wgtypes.Config{PrivateKey: &keys[i], Peers: []wgtypes.PeerConfig{{PublicKey: keys[1-i].PublicKey(),
			AllowedIPs: prefixes("245.1.0.0/24")}}}
		if i == 0 {
			config.Peers[0].Endpoint = at
		} else {
			config.ListenPort = &gatewayPort
		}
		if err := d.Configure(config); err != nil {
			b.Fatal(err)
		}
	}
	pass := func(n int64) {
		tuns[0].quota.Add(n)
		want := tuns[0].quota.Load()
		for end := time.Now().Add(30 * time.Second); tuns[1].got.Load() < want; time.Sleep(20 * time.Microsecond) {
			if time.Now().After(end) {
				b.Fatalf("%d of %d packets arrived", tuns[1].got.Load(), want)
			}
		}
	}
	pass(1) // the handshake
	b.SetBytes(benchMTU)
	b.ReportAllocs()
	before := cpuTime(b)
	b.ResetTimer()
	pass(int64(b.N))
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op") // steadier than the wall clock
}

// cpuTime returns what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTunnel sends packets of 1,420 bytes from TUN to TUN over the carrier on loopback TCP.
func BenchmarkTunnel(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	k := &carrier.Keeper{Bind: carrier.NewBind(), Endpoint: endpoint, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}}
	s := &carrier.Server{Bind: carrier.NewBind()}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { k.Run(ctx) })
	tasks.Go(func() { s.Serve(ctx, l) })
	defer tasks.Wait()
	defer cancel()
	for !k.State().Connected {
		time.Sleep(time.Millisecond)
	}
	benchTunnel(b, k.Bind, s.Bind, net.UDPAddrFromAddrPort(endpoint), 0)
	if d := k.State().Dropped; d > 0 {
		b.Errorf("%d packets were dropped", d)
	}
}

// BenchmarkTunnelUDP does the same over WireGuard's own UDP sockets.
func BenchmarkTunnelUDP(b *testing.B) {
	const port = 51899
	benchTunnel(b, conn.NewDefaultBind(), conn.NewDefaultBind(), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, port)
}
