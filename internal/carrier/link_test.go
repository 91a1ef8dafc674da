package carrier

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-dev/culvert/internal/carrier/streamtest"
	"golang.zx2c4.com/wireguard/conn"
)

var gatewayAddr = netip.MustParseAddrPort("192.0.2.1:1")

// pair is a node's and a gateway's link over one stream.
type pair struct {
	node, gateway         *link
	nodeBind, gatewayBind *Bind
	nodeStream            *streamtest.Conn
}

func newPair(t testing.TB, shape streamtest.Shape) *pair {
	t.Helper()
	a, b := streamtest.Pipe(shape)
	p := &pair{nodeBind: NewBind(), gatewayBind: NewBind(), nodeStream: a}
	timing := Timing{}.withDefaults()
	var err error
	if p.node, err = newLink(a, p.nodeBind, p.nodeBind.endpoint(gatewayAddr), fillHello(Hello{}, "node"), timing); err != nil {
		t.Fatal(err)
	}
	if p.gateway, err = newLink(b, p.gatewayBind, p.gatewayBind.newStreamEndpoint(), fillHello(Hello{}, "gateway"), timing); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*link{p.node, p.gateway} {
		if _, err := l.hello(nil); err != nil {
			t.Fatal(err)
		}
		l.endpoint.attach(l, false)
	}
	return p
}

func (p *pair) close() {
	p.node.close(errClosed)
	p.gateway.close(errClosed)
	p.node.wait()
	p.gateway.wait()
	p.nodeBind.Close()
	p.gatewayBind.Close()
}

// arrivals is what a test sees of numbered packets that came.
type arrivals struct {
	count, bytes int
	disorder     int
	delay        time.Duration // longest
	last         uint64
}

// numbered returns a packet of that size carrying its number and the time.
func numbered(n uint64, size int) []byte {
	p := make([]byte, size)
	p[0] = 4
	binary.BigEndian.PutUint64(p[1:], n)
	binary.BigEndian.PutUint64(p[9:], uint64(time.Now().UnixNano()))
	return p
}

func (a *arrivals) take(p []byte) {
	n := binary.BigEndian.Uint64(p[1:])
	if a.count > 0 && n <= a.last {
		a.disorder++
	}
	a.last = n
	a.count++
	a.bytes += len(p)
	a.delay = max(a.delay, time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(p[9:])))))
}

// listen opens a Bind and calls take for every packet until the Bind is closed.
func listen(t testing.TB, b *Bind, take func(p []byte, from conn.Endpoint)) {
	t.Helper()
	fns, _, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	bufs := make([][]byte, b.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	sizes, eps := make([]int, len(bufs)), make([]conn.Endpoint, len(bufs))
	done := make(chan struct{})
	t.Cleanup(func() { _ = b.Close(); <-done }) // take may speak of t
	go func() {
		defer close(done)
		for {
			n, err := fns[0](bufs, sizes, eps)
			if err != nil {
				return
			}
			for i := range n {
				take(bufs[i][:sizes[i]], eps[i])
			}
		}
	}()
}

// TestFlow saturates simulated paths. In each, the packets that arrive must fill the path's rate while
// little waits in the path's own buffers, which are endless.
func TestFlow(t *testing.T) {
	const packet, batch = 1400, 32
	for _, row := range []struct {
		name    string
		rate    float64 // bytes per second
		delay   time.Duration
		fill    float64       // of the rate, at least
		waiting time.Duration // in the path, on top of the round trip, at most
	}{
		{"local cluster", 40e6, 500 * time.Microsecond, 0.9, 40 * time.Millisecond},
		{"office line", 10e6, 10 * time.Millisecond, 0.9, 60 * time.Millisecond},
		{"home line", 2e6, 20 * time.Millisecond, 0.85, 120 * time.Millisecond},
		{"another continent", 20e6, 90 * time.Millisecond, 0.8, 150 * time.Millisecond},
		{"a phone", 250e3, 50 * time.Millisecond, 0.8, 450 * time.Millisecond},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, streamtest.Shape{Rate: row.rate, Delay: row.delay})
				defer p.close()
				var got arrivals
				var mu sync.Mutex
				listen(t, p.gatewayBind, func(b []byte, _ conn.Endpoint) {
					mu.Lock()
					defer mu.Unlock()
					got.take(b)
				})
				listen(t, p.nodeBind, func([]byte, conn.Endpoint) {})
				var sent uint64
				worst := 0
				offer := func(d time.Duration) { // twice the rate
					pause := time.Duration(batch * packet / row.rate / 2 * 1e9)
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(pause) {
						bufs := make([][]byte, batch)
						for i := range bufs {
							sent++
							bufs[i] = numbered(sent, packet)
						}
						if err := p.nodeBind.Send(bufs, p.node.endpoint); err != nil {
							t.Fatal(err)
						}
						worst = max(worst, p.nodeStream.OnTheWay())
					}
				}
				offer(3 * time.Second) // to measure the path
				mu.Lock()
				got, worst = arrivals{}, 0
				mu.Unlock()
				offer(6 * time.Second)
				mu.Lock()
				defer mu.Unlock()
				fill := float64(got.bytes) / 6 / row.rate
				waiting := time.Duration(float64(worst)/row.rate*1e9) - row.delay
				t.Logf("fill %.2f, waiting in the path %v, whole delay %v", fill, waiting, got.delay)
				if fill < row.fill {
					t.Errorf("filled %.2f of the rate, want %.2f", fill, row.fill)
				}
				if waiting > row.waiting {
					t.Errorf("%v of data waited in the path, want at most %v", waiting, row.waiting)
				}
				if got.delay > row.delay+maxAge+row.waiting {
					t.Errorf("a packet took %v", got.delay)
				}
				if got.disorder > 0 {
					t.Errorf("%d packets out of order", got.disorder)
				}
			})
		})
	}
}

// TestFlowFollows changes the path while it is full.
func TestFlowFollows(t *testing.T) {
	const packet, batch = 1400, 32
	for _, row := range []struct {
		name          string
		before, after streamtest.Shape
	}{
		{"slower", streamtest.Shape{Rate: 20e6, Delay: 5 * time.Millisecond}, streamtest.Shape{Rate: 2e6, Delay: 5 * time.Millisecond}},
		{"faster", streamtest.Shape{Rate: 2e6, Delay: 5 * time.Millisecond}, streamtest.Shape{Rate: 20e6, Delay: 5 * time.Millisecond}},
		{"longer", streamtest.Shape{Rate: 10e6, Delay: time.Millisecond}, streamtest.Shape{Rate: 10e6, Delay: 40 * time.Millisecond}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, row.before)
				defer p.close()
				var bytes atomic.Int64
				listen(t, p.gatewayBind, func(b []byte, _ conn.Endpoint) { bytes.Add(int64(len(b))) })
				listen(t, p.nodeBind, func([]byte, conn.Endpoint) {})
				bufs := make([][]byte, batch)
				for i := range bufs {
					bufs[i] = make([]byte, packet)
				}
				offer := func(d time.Duration, rate float64) (worst int) {
					pause := time.Duration(batch * packet / rate / 2 * 1e9)
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(pause) {
						p.nodeBind.Send(bufs, p.node.endpoint)
						worst = max(worst, p.nodeStream.OnTheWay())
					}
					return worst
				}
				offer(3*time.Second, row.before.Rate)
				p.nodeStream.SetShape(row.after)
				offer(35*time.Second, row.after.Rate) // a longer way shows when the shortest round trip expires
				bytes.Store(0)
				worst := offer(3*time.Second, row.after.Rate)
				fill := float64(bytes.Load()) / 3 / row.after.Rate
				waiting := time.Duration(float64(worst)/row.after.Rate*1e9) - row.after.Delay
				t.Logf("fill %.2f, waiting in the path %v", fill, waiting)
				if fill < 0.85 || waiting > 120*time.Millisecond {
					t.Errorf("filled %.2f of the rate with %v waiting in the path", fill, waiting)
				}
			})
		})
	}
}

// TestSendNeverBlocks sends into every kind of stream that takes nothing.
func TestSendNeverBlocks(t *testing.T) {
	for _, row := range []struct {
		name string
		prep func(*pair)
	}{
		{"a silent stream", func(p *pair) { p.nodeStream.Silence(true) }},
		{"a stream with small buffers", func(p *pair) { p.nodeStream.SetShape(streamtest.Shape{Buffer: 1}); p.nodeStream.Silence(true) }},
		{"a WireGuard at the other end that reads nothing", func(p *pair) { p.gatewayBind.Open(0) }},
		{"no stream yet", func(p *pair) { p.node.endpoint.detach(p.node) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, streamtest.Shape{})
				defer p.close()
				listen(t, p.nodeBind, func([]byte, conn.Endpoint) {})
				row.prep(p)
				packet := make([]byte, 1400)
				start := time.Now()
				for range 20000 {
					if err := p.nodeBind.Send([][]byte{packet, packet}, p.node.endpoint); err != nil {
						t.Fatal(err)
					}
				}
				if waited := time.Since(start); waited > 0 {
					t.Errorf("Send waited for %v", waited)
				}
				synctest.Wait()
				p.node.endpoint.mu.Lock()
				defer p.node.endpoint.mu.Unlock()
				q := &p.node.endpoint.queue
				if q.payload > maxQueue || q.packets > maxQueuePackets {
					t.Errorf("%d bytes in %d packets are queued", q.payload, q.packets)
				}
				if p.node.endpoint.dropped.Load() == 0 {
					t.Error("nothing was dropped: the stream took it all")
				}
			})
		})
	}
}

// TestLinkEnds lists how links end and what they say about it.
func TestLinkEnds(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(*pair)
		want error
	}{
		{"the other side closes", func(p *pair) { p.gateway.close(errClosed) }, errClosed},
		{"the other side says goodbye", func(p *pair) { p.gateway.bye("so long", errReplaced) }, errClosed},
		{"the stream goes silent", func(p *pair) { p.nodeStream.Silence(true) }, errSilent},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, streamtest.Shape{})
				defer p.close()
				row.end(p)
				<-p.node.done
				p.node.wait()
				if err := p.node.reason(); !errors.Is(err, row.want) {
					t.Errorf("ended with %v, want %v", err, row.want)
				}
			})
		})
	}
}
