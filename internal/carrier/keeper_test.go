package carrier

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-dev/culvert/internal/carrier/streamtest"
	"github.com/culvert-dev/culvert/internal/frame"
	"golang.zx2c4.com/wireguard/conn"
)

// world is a Keeper and a Server with a network between them, inside a synctest bubble.
type world struct {
	t      *testing.T
	net    *streamtest.Network
	keeper *Keeper
	server *Server
	ended  chan error // what Keeper.Run returned

	mu         sync.Mutex
	switches   int
	atGateway  int       // packets that reached the gateway
	arrived    time.Time // the last of them
	stopServer func()
}

func newWorld(t *testing.T, hello Hello, adjust func(*world)) *world {
	w := &world{t: t, net: streamtest.NewNetwork(streamtest.Shape{Delay: time.Millisecond, Buffer: 1 << 20}), ended: make(chan error, 1)}
	w.keeper = &Keeper{Bind: NewBind(), Endpoint: gatewayAddr, Hello: Hello{MTU: 1400},
		Dial: func(ctx context.Context) (io.ReadWriteCloser, error) { return w.net.Dial(ctx.Done()) },
		OnSwitch: func() {
			w.mu.Lock()
			w.switches++
			w.mu.Unlock()
		}}
	w.server = &Server{Bind: NewBind(), Hello: hello}
	if adjust != nil {
		adjust(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	serverCtx, stopServer := context.WithCancel(ctx)
	w.stopServer = stopServer
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := w.server.Serve(serverCtx, w.net); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	tasks.Go(func() { w.ended <- w.keeper.Run(ctx) })
	listen(t, w.server.Bind, func(p []byte, from conn.Endpoint) {
		w.mu.Lock()
		w.atGateway++
		w.arrived = time.Now()
		w.mu.Unlock()
		w.server.Bind.Send([][]byte{p}, from) // echo
	})
	listen(t, w.keeper.Bind, func(_ []byte, from conn.Endpoint) {
		if from.DstToString() != gatewayAddr.String() {
			t.Errorf("a packet from %s, want the gateway's one endpoint", from.DstToString())
		}
	})
	t.Cleanup(func() {
		cancel()
		tasks.Wait()
		w.keeper.Bind.Close()
		w.server.Bind.Close()
	})
	return w
}

// until waits for a condition, for at most d.
func (w *world) until(what string, d time.Duration, condition func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !condition() {
		if time.Since(start) > d {
			w.t.Fatalf("%s: not within %v; state %+v", what, d, w.keeper.State())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

func (w *world) connected() bool { return w.keeper.State().Connected }

// traffic sends a packet every 100 ms until the function it returns is called.
func (w *world) traffic() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := uint64(1); ; n++ {
			if err := w.keeper.Bind.Send([][]byte{numbered(n, 500)}, w.keeper.Bind.endpoint(gatewayAddr)); err != nil {
				w.t.Errorf("Send: %v", err)
			}
			select {
			case <-end:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() { close(end); <-ended }
}

// passes waits until a packet sent from now on reaches the gateway.
func (w *world) passes(d time.Duration) time.Duration {
	w.t.Helper()
	start := time.Now()
	return w.until("traffic passes", d, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.arrived.After(start)
	})
}

func inWorld(t *testing.T, hello Hello, adjust func(*world), test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newWorld(t, hello, adjust)) })
}

func TestConnect(t *testing.T) {
	inWorld(t, Hello{Version: "0.1.0", MTU: 1380}, nil, func(w *world) {
		w.until("connected", 10*time.Millisecond, w.connected)
		defer w.traffic()()
		w.passes(10 * time.Millisecond)
		w.until("echoed", time.Second, func() bool { return w.keeper.State().ReceivedBytes > 0 })
		s := w.keeper.State()
		if s.Peer.MTU != 1380 || s.Peer.Version != "0.1.0" || s.Peer.Role != "gateway" || s.Redials != 0 || s.Err != nil {
			w.t.Errorf("state %+v", s)
		}
		if s.RTT < 2*time.Millisecond || s.RTT > 3*time.Millisecond {
			w.t.Errorf("round trip %v over a delay of 1 ms each way", s.RTT)
		}
		if st := w.server.Stats(); st.Streams != 1 || st.Accepted != 1 || st.ReceivedBytes == 0 {
			w.t.Errorf("server %+v", st)
		}
		if !w.server.Open(netip.MustParseAddrPort("[2001:db8::1]:1")) || w.server.Open(netip.MustParseAddrPort("[2001:db8::2]:1")) {
			w.t.Error("the server does not know which of its streams are open")
		}
	})
}

// TestBlackHole drops everything for a minute without closing anything, with and without traffic.
func TestBlackHole(t *testing.T) {
	for _, row := range []struct {
		name          string
		traffic       bool
		noticed       time.Duration
		oldStreamsToo bool
	}{
		{"under traffic", true, 4 * time.Second, false},
		{"idle", false, 10 * time.Second, false},
		{"and the old stream wakes up as well", true, 4 * time.Second, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			inWorld(t, Hello{}, nil, func(w *world) {
				w.until("connected", time.Second, w.connected)
				time.Sleep(20 * time.Second)
				if row.traffic {
					defer w.traffic()()
					w.passes(time.Second)
				}
				w.net.Down(true, true)
				w.until("noticed", row.noticed, func() bool { return !w.connected() && w.keeper.State().Err != nil })
				time.Sleep(60*time.Second - row.noticed)
				w.net.Down(false, row.oldStreamsToo)
				back := w.until("connected again", 6*time.Second, w.connected)
				t.Logf("back after %v, %d dials", back, w.net.Dials())
				if row.traffic {
					w.passes(200 * time.Millisecond)
				}
				if dials := w.net.Dials(); dials > 20 {
					t.Errorf("%d dials in a minute", dials)
				}
				time.Sleep(5 * time.Second)
				w.until("one stream only", 40*time.Second, func() bool { return w.server.Stats().Streams == 1 })
			})
		})
	}
}

// TestHiccup: a stream that goes silent for three seconds and then answers is kept; the second one that
// was opened beside it is not used.
func TestHiccup(t *testing.T) {
	inWorld(t, Hello{}, nil, func(w *world) {
		w.until("connected", time.Second, w.connected)
		defer w.traffic()()
		w.net.Down(true, true)
		w.until("suspected", 5*time.Second, func() bool { return !w.connected() })
		w.net.Conns()[0].Silence(false)
		w.until("answered", time.Second, w.connected)
		w.net.Down(false, true)
		time.Sleep(10 * time.Second)
		if s := w.keeper.State(); s.Redials != 0 || !s.Connected {
			w.t.Errorf("state %+v, want the first stream", s)
		}
		if st := w.server.Stats(); st.Streams != 1 {
			w.t.Errorf("%d streams", st.Streams)
		}
	})
}

func TestKick(t *testing.T) {
	t.Run("opens another stream beside the running one and moves over", func(t *testing.T) {
		inWorld(t, Hello{}, nil, func(w *world) {
			w.until("connected", time.Second, w.connected)
			defer w.traffic()()
			w.passes(time.Second)
			w.keeper.Kick()
			for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if !w.connected() {
					t.Fatal("not connected for a moment")
				}
			}
			if s, st := w.keeper.State(), w.server.Stats(); s.Redials != 1 || st.Streams != 1 {
				t.Errorf("%d redials, %d streams", s.Redials, st.Streams)
			}
			if w.switches != 3 {
				t.Errorf("the peer was nudged %d times, want at both streams and at the end of the first", w.switches)
			}
		})
	})
	t.Run("leaves a stream alone that answers when the new way does not", func(t *testing.T) {
		inWorld(t, Hello{}, nil, func(w *world) {
			w.until("connected", time.Second, w.connected)
			w.net.Down(true, true)
			w.net.Conns()[0].Silence(false)
			w.keeper.Kick()
			time.Sleep(20 * time.Second)
			if s := w.keeper.State(); !s.Connected || s.Redials != 0 {
				t.Errorf("state %+v", s)
			}
			if d := w.net.Dials(); d != 2 {
				t.Errorf("%d dials, want the first and the kicked one", d)
			}
		})
	})
	t.Run("in a storm lets dials through and moves over when it ends", func(t *testing.T) {
		inWorld(t, Hello{}, nil, func(w *world) {
			w.until("connected", time.Second, w.connected)
			storm := time.Now()
			for range 500 {
				w.keeper.Kick()
				time.Sleep(10 * time.Millisecond)
			}
			if d, most := w.net.Dials(), int(time.Since(storm)/(100*time.Millisecond))+2; d > most {
				t.Errorf("%d dials, want at most one in 100 ms", d)
			}
			before := w.net.Dials()
			time.Sleep(5 * time.Second)
			if d := w.net.Dials() - before; d > 2 || !w.connected() {
				t.Errorf("%d dials after the storm, connected %v", d, w.connected())
			}
			w.until("one stream only", time.Second, func() bool { return w.server.Stats().Streams == 1 })
		})
	})
	t.Run("lets a slow dial through a storm", func(t *testing.T) {
		inWorld(t, Hello{}, func(w *world) {
			dial := w.keeper.Dial
			w.keeper.Dial = func(ctx context.Context) (io.ReadWriteCloser, error) {
				time.Sleep(600 * time.Millisecond)
				return dial(ctx)
			}
		}, func(w *world) {
			for range 200 {
				w.keeper.Kick()
				time.Sleep(10 * time.Millisecond)
			}
			if !w.connected() {
				t.Error("not connected")
			}
		})
	})
	t.Run("ends a dial that hangs", func(t *testing.T) {
		inWorld(t, Hello{}, func(w *world) { w.net.Down(true, true) }, func(w *world) {
			time.Sleep(2500 * time.Millisecond)
			before := w.net.Dials()
			w.keeper.Kick()
			synctest.Wait()
			time.Sleep(time.Millisecond)
			if w.net.Dials() != before+1 {
				t.Errorf("%d dials, want a new one at once", w.net.Dials()-before)
			}
		})
	})
}

// TestDialsAreSpaced counts the dials of a minute against gateways that fail at once.
func TestDialsAreSpaced(t *testing.T) {
	for _, row := range []struct {
		name string
		dial func(ctx context.Context) (io.ReadWriteCloser, error)
		most int64
	}{
		{"refused", func(context.Context) (io.ReadWriteCloser, error) { return nil, errors.New("refused") }, 40},
		{"closed before hello", func(context.Context) (io.ReadWriteCloser, error) {
			a, b := streamtest.Pipe(streamtest.Shape{})
			b.Close()
			return a, nil
		}, 40},
		{"closed after hello", func(context.Context) (io.ReadWriteCloser, error) {
			a, b := streamtest.Pipe(streamtest.Shape{})
			bind := NewBind()
			l, err := newLink(b, bind, bind.newStreamEndpoint(), fillHello(Hello{}, "gateway"), Timing{}.withDefaults())
			if err == nil {
				l.bye("go away", errClosed)
				go l.wait()
			}
			return a, err
		}, 60},
		{"a dial that ignores its time", func(context.Context) (io.ReadWriteCloser, error) {
			time.Sleep(12 * time.Second)
			return nil, errors.New("late")
		}, 14},
		{"says nothing", func(context.Context) (io.ReadWriteCloser, error) {
			a, _ := streamtest.Pipe(streamtest.Shape{})
			return a, nil
		}, 14},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var dials atomic.Int64
				k := &Keeper{Bind: NewBind(), Endpoint: gatewayAddr, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
					dials.Add(1)
					return row.dial(ctx)
				}}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if err := k.Run(ctx); err != nil {
					t.Errorf("Run: %v", err)
				}
				if n := dials.Load(); n < 10 || n > row.most {
					t.Errorf("%d dials in a minute, want at least 10, at most %d", n, row.most)
				}
				if k.State().Err == nil {
					t.Error("the state names no error")
				}
			})
		})
	}
}

func TestIncompatible(t *testing.T) {
	for _, row := range []struct {
		name  string
		hello Hello
	}{
		{"two minor versions apart", Hello{Version: "0.3.0"}},
		{"another protocol", Hello{Protocol: 2}},
		{"nonsense", Hello{Version: "latest"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			inWorld(t, row.hello, nil, func(w *world) {
				err := <-w.ended
				if !errors.Is(err, ErrIncompatible) {
					t.Errorf("Run ended with %v", err)
				}
				t.Log(err)
				if s := w.keeper.State(); !errors.Is(s.Err, ErrIncompatible) || s.Connected {
					t.Errorf("state %+v", s)
				}
				synctest.Wait()
				if st := w.server.Stats(); st.Refused != 1 || st.Streams != 0 {
					t.Errorf("server %+v", st)
				}
			})
		})
	}
}

// TestGatewayStops: the goodbye of a stopping gateway makes the node look for the next one at once.
func TestGatewayStops(t *testing.T) {
	inWorld(t, Hello{}, nil, func(w *world) {
		w.until("connected", time.Second, w.connected)
		time.Sleep(10 * time.Second)
		before := w.net.Dials()
		w.stopServer()
		w.until("noticed", 100*time.Millisecond, func() bool { return !w.connected() && w.net.Dials() > before })
	})
}

// TestDeadReader: a client that says hello, sends, and never reads a byte neither slows the others nor
// takes more than bounded memory, and is closed in the end.
func TestDeadReader(t *testing.T) {
	inWorld(t, Hello{}, nil, func(w *world) {
		w.until("connected", time.Second, w.connected)
		stream, err := w.net.Dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		bind := NewBind()
		dead, err := newLink(writeOnly{stream}, bind, bind.endpoint(gatewayAddr), fillHello(Hello{}, "node"), Timing{}.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		dead.endpoint.attach(dead, false)
		bind.Open(0)
		stop := make(chan struct{})
		var flood sync.WaitGroup
		flood.Go(func() { // each packet is echoed, to nobody
			for n := uint64(1); ; n++ {
				bind.Send([][]byte{numbered(n, 1400)}, dead.endpoint)
				dead.mu.Lock()
				dead.flow.acked = dead.flow.sent // it would read no acknowledgement
				dead.mu.Unlock()
				dead.wakeWriter()
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
		time.Sleep(5 * time.Second)
		st := w.server.Stats()
		if st.Streams != 2 || st.Dropped == 0 {
			t.Errorf("server %+v, want two streams and drops", st)
		}
		endTraffic := w.traffic()
		for range 50 {
			if d := w.passes(time.Second); d > 150*time.Millisecond {
				t.Errorf("the other node's packet came after %v", d)
			}
			time.Sleep(50 * time.Millisecond)
		}
		w.until("the dead one closed", 40*time.Second, func() bool { return w.server.Stats().Streams == 1 })
		close(stop)
		flood.Wait()
		endTraffic()
		dead.close(errClosed)
		dead.wait()
		bind.Close()
	})
}

// writeOnly is a stream whose Read waits for Close.
type writeOnly struct{ io.ReadWriteCloser }

func (w writeOnly) Read(p []byte) (int, error) {
	<-w.ReadWriteCloser.(*streamtest.Conn).Closed()
	return 0, io.ErrClosedPipe
}

func TestServerRefuses(t *testing.T) {
	for _, row := range []struct {
		name string
		say  string
	}{
		{"a client that says nothing", ""},
		{"a client that speaks HTTP", "GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"},
		{"data before hello", "\x00\x04\x02abcd"},
		{"another gateway", string(frame.Append(nil, frame.TypeHello, []byte(`{"version":"0.1.0","protocol":1,"role":"gateway"}`)))},
	} {
		t.Run(row.name, func(t *testing.T) {
			inWorld(t, Hello{}, nil, func(w *world) {
				w.until("connected", time.Second, w.connected)
				stream, err := w.net.Dial(nil)
				if err != nil {
					t.Fatal(err)
				}
				defer stream.Close()
				if _, err := io.WriteString(stream, row.say); err != nil {
					t.Fatal(err)
				}
				w.until("refused", 6*time.Second, func() bool { return w.server.Stats().Refused == 1 })
				if _, err := io.Copy(io.Discard, stream); err != nil {
					t.Errorf("the stream was not closed cleanly: %v", err)
				}
				if !w.connected() {
					t.Error("the other stream suffered")
				}
			})
		})
	}
	t.Run("more streams than allowed", func(t *testing.T) {
		inWorld(t, Hello{}, func(w *world) { w.server.MaxStreams = 1 }, func(w *world) {
			w.until("connected", time.Second, w.connected)
			stream, err := w.net.Dial(nil)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			if n, err := stream.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("read %d bytes, %v; want the stream closed", n, err)
			}
		})
	})
}

func TestBind(t *testing.T) {
	b := NewBind()
	if err := b.Close(); err != nil {
		t.Errorf("closing a Bind that was never open: %v", err)
	}
	for range 3 { // wireguard-go closes and opens whenever the port is set
		fns, port, err := b.Open(7)
		if err != nil || port != 7 || len(fns) != 1 {
			t.Fatalf("Open: %d functions, port %d, %v", len(fns), port, err)
		}
		if _, _, err := b.Open(7); !errors.Is(err, conn.ErrBindAlreadyOpen) {
			t.Errorf("a second Open: %v", err)
		}
		b.Close()
		if n, err := fns[0](make([][]byte, 1), make([]int, 1), make([]conn.Endpoint, 1)); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("receive after Close: %d, %v", n, err)
		}
	}
	if err := b.Send([][]byte{{1}}, &conn.StdNetEndpoint{}); !errors.Is(err, conn.ErrWrongEndpointType) {
		t.Errorf("Send to a foreign endpoint: %v", err)
	}
	e, err := b.ParseEndpoint("192.0.2.9:51820")
	if again, _ := b.ParseEndpoint("192.0.2.9:51820"); err != nil || again != e || e.DstToString() != "192.0.2.9:51820" {
		t.Errorf("ParseEndpoint: %v and %v, %v", e, again, err)
	}
	if err := b.Send([][]byte{{1}}, e); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send on a closed Bind: %v", err)
	}
	b.Open(0)
	defer b.Close()
	if err := b.Send([][]byte{make([]byte, 40000)}, e); err == nil {
		t.Error("Send took a packet of 40,000 bytes")
	}
	b.remove(e.(*Endpoint))
	if err := b.Send([][]byte{{1}}, e); !errors.Is(err, ErrNoPath) {
		t.Errorf("Send to an endpoint that ended: %v", err)
	}
	if _, err := b.ParseEndpoint("gateway:1"); err == nil {
		t.Error("ParseEndpoint took a name")
	}
}
