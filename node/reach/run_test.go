package reach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-dev/culvert/internal/packet"
)

// fakeHost is a host whose kernel, tunnel and cluster do what fates says of each address.
type fakeHost struct {
	tap   *Tap
	fates map[netip.Addr]fate
	mu    sync.Mutex
	sends []string // "ADDR:PORT at TIME since the start"
	start time.Time
	open  int // sockets and the network itself
}

// fate is what happens to the probes to one address. The zero value: the gateway answers at once.
type fate struct {
	route   Route // the zero Route is the tunnel's
	lookup  error
	sendErr error
	lost    bool          // never gets to the TUN
	silent  bool          // gets no answer
	first   bool          // only the first try is silent
	after   time.Duration // which the answer takes
	dropped bool          // the answer never gets to the socket
	answer  packet.Reason // TimeExceeded if 0
}

func (h *fakeHost) count(by int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open += by
}

func (h *fakeHost) route(a netip.Addr) (Route, error) {
	f := h.fates[a]
	if f.route == (Route{}) {
		f.route = Route{Interface: "culvert0", Table: 7830}
	}
	return f.route, f.lookup
}

func (h *fakeHost) socket(is4 bool) (socket, error) {
	h.count(1)
	s := &fakeSocket{host: h, from: 5006, heard: make(chan heard, 4096), closed: make(chan struct{})}
	if is4 {
		s.from = 5004
	}
	return s, nil
}

func (h *fakeHost) close() { h.count(-1) }

type fakeSocket struct {
	host   *fakeHost
	from   uint16
	heard  chan heard
	closed chan struct{}
	timers sync.WaitGroup
}

func (s *fakeSocket) port() uint16 { return s.from }

func (s *fakeSocket) receive() (heard, error) {
	select {
	case h := <-s.heard:
		return h, nil
	case <-s.closed:
		return heard{}, os.ErrClosed
	}
}

func (s *fakeSocket) close() error {
	close(s.closed)
	s.timers.Wait()
	s.host.count(-1)
	return nil
}

func (s *fakeSocket) send(to netip.AddrPort) error {
	h, f := s.host, s.host.fates[to.Addr()]
	h.mu.Lock()
	h.sends = append(h.sends, fmt.Sprintf("%v at %v", to, time.Since(h.start)))
	h.mu.Unlock()
	if f.sendErr != nil || f.lost {
		return f.sendErr
	}
	pkt := probePacket(s.from, to)
	h.through(pkt, true)
	if f.silent || f.first && to.Port() == firstPort {
		return nil
	}
	s.timers.Go(func() {
		select {
		case <-time.After(f.after):
			s.answer(pkt, to, f)
		case <-s.closed:
		}
	})
	return nil
}

// answer sends the gateway's ICMP error through the tunnel to the socket.
func (s *fakeSocket) answer(pkt []byte, to netip.AddrPort, f fate) {
	if f.answer == 0 {
		f.answer = packet.TimeExceeded
	}
	e := errorAbout(pkt, f.answer)
	s.host.through(e, false)
	if f.dropped {
		return
	}
	h, _ := packet.Parse(e)
	s.heard <- heard{to, h.Src, kindOf(h.Is4(), e[h.PayloadOffset], e[h.PayloadOffset+1])}
}

// through passes a packet through the TUN, out of the host or into it.
func (h *fakeHost) through(pkt []byte, out bool) {
	if !out {
		_, _ = h.tap.Write([][]byte{pkt}, 0)
		return
	}
	tap := &Tap{Device: &batchTUN{packets: [][]byte{pkt}}}
	tap.watch.Store(h.tap.watch.Load())
	_, _ = tap.Read([][]byte{make([]byte, 2048)}, make([]int, 1), 0)
}

// discard is a TUN that swallows what is written and leaves it as it was.
type discard struct{ batchTUN }

func (*discard) Write(bufs [][]byte, _ int) (int, error) { return len(bufs), nil }

func fakeProber(fates map[netip.Addr]fate) (*fakeHost, *Prober) {
	h := &fakeHost{tap: NewTap(&discard{}), fates: fates, start: time.Now()}
	p := New(Config{Interface: "culvert0", Tap: h.tap})
	p.open = func() (network, error) { h.count(1); return h, nil }
	return h, p
}

// checkEnd makes sure that a run left nothing behind.
func (h *fakeHost) checkEnd(t *testing.T) {
	t.Helper()
	if h.open != 0 || h.tap.watch.Load() != nil || len(h.tap.turn) != 0 {
		t.Errorf("%d sockets are open, the tap is armed: %t", h.open, h.tap.watch.Load() != nil)
	}
}

func verdicts(results []Result) string {
	var out []string
	for _, r := range results {
		out = append(out, r.Prefix.String()+" "+string(r.Verdict))
	}
	return strings.Join(out, ", ")
}

func TestProbe(t *testing.T) {
	a := netip.MustParseAddr
	tun0 := Route{Interface: "tun0", Table: 52}
	all := []Target{
		target("10.1.0.0/16", "10.1.0.1"), target("10.2.0.0/16", "10.2.0.1"), target("fd10:3::/112", "fd10:3::1"),
		target("10.4.0.0/16", "10.4.0.1"), target("10.5.0.0/16", "10.5.0.1"), target("10.6.0.0/16", "10.6.0.1"),
		target("10.7.0.0/16", "10.7.0.1"), target("10.8.0.0/16", "10.8.0.1"), target("10.1.0.0/24", "10.1.0.1"),
	}
	synctest.Test(t, func(t *testing.T) {
		h, p := fakeProber(map[netip.Addr]fate{
			a("10.2.0.1"): {route: tun0}, a("10.4.0.1"): {sendErr: syscall.EPERM}, a("10.5.0.1"): {silent: true},
			a("10.6.0.1"): {dropped: true}, a("10.7.0.1"): {answer: packet.Prohibited}, a("10.8.0.1"): {lookup: errors.New("no netlink")},
		})
		results := p.Probe(t.Context(), all)
		want := "10.1.0.0/16 working, 10.2.0.0/16 taken, fd10:3::/112 working, 10.4.0.0/16 blocked, 10.5.0.0/16 silent, " +
			"10.6.0.0/16 blocked, 10.7.0.0/16 refused, 10.8.0.0/16 unproven, 10.1.0.0/24 working"
		if got := verdicts(results); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if results[1].Route != tun0 || !strings.HasPrefix(results[1].Detail, "10.2.0.0/16: packets to 10.2.0.1 leave by tun0") {
			t.Errorf("taken: %+v", results[1])
		}
		for _, s := range h.sends {
			if strings.HasPrefix(s, "10.2.0.1") {
				t.Errorf("a probe went where somebody else has the route: %s", s)
			}
		}
		if took := time.Since(h.start); took > budget {
			t.Errorf("the run took %v", took)
		}
		h.checkEnd(t)
	})
}

// When all have a verdict the run is over, and the answer's time is the one it was sent for.
func TestProbeEndsWithTheLastAnswer(t *testing.T) {
	addr := netip.MustParseAddr("10.1.0.1")
	for _, row := range []struct {
		name  string
		f     fate
		took  time.Duration
		rtt   time.Duration
		sends int
	}{
		{"at the first try", fate{after: 30 * time.Millisecond}, 30 * time.Millisecond, 30 * time.Millisecond, 1},
		{"at the second", fate{first: true, after: 40 * time.Millisecond}, 640 * time.Millisecond, 40 * time.Millisecond, 2},
		{"late, to the first", fate{after: 700 * time.Millisecond}, 700 * time.Millisecond, 700 * time.Millisecond, 2},
		{"never", fate{silent: true}, 1500 * time.Millisecond, 0, 2},
		{"dropped on the way out", fate{sendErr: syscall.EPERM}, 0, 0, 1},
		{"with a full queue", fate{sendErr: syscall.ENOBUFS}, 1500 * time.Millisecond, 0, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			h, p := fakeProber(map[netip.Addr]fate{addr: row.f})
			r := p.Probe(t.Context(), []Target{target("10.1.0.0/16", "10.1.0.1")})[0]
			if took := time.Since(h.start); took != row.took || r.RTT != row.rtt || len(h.sends) != row.sends {
				t.Errorf("%s: %s after %v, RTT %v, sent %q", row.name, r.Verdict, took, r.RTT, h.sends)
			}
			h.checkEnd(t)
		})
	}
}

// Thousands of targets, all silent, end in time too, and leave in bursts that queues can hold.
func TestProbeOfManyTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, p := fakeProber(map[netip.Addr]fate{})
		var all []Target
		for i := range 3000 {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})
			h.fates[a] = fate{silent: i%2 == 0}
			all = append(all, Target{netip.PrefixFrom(a, 24).Masked(), a, gateway4})
		}
		for i, r := range p.Probe(t.Context(), all) {
			if want := map[bool]Verdict{true: Silent, false: Working}[i%2 == 0]; r.Verdict != want || r.Addr != all[i].Addr {
				t.Fatalf("%d: %+v, want %s", i, r, want)
			}
		}
		together := map[string]int{}
		for _, s := range h.sends {
			_, at, _ := strings.Cut(s, " at ")
			if together[at]++; together[at] > burst {
				t.Fatalf("more than %d probes at %s", burst, at)
			}
		}
		if took := time.Since(h.start); took > budget {
			t.Errorf("the run took %v", took)
		}
		h.checkEnd(t)
	})
}

// A run that is interrupted says so of what has no verdict yet, and ends at once.
func TestProbeInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, p := fakeProber(map[netip.Addr]fate{netip.MustParseAddr("10.2.0.1"): {silent: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		got := verdicts(p.Probe(ctx, []Target{target("10.1.0.0/16", "10.1.0.1"), target("10.2.0.0/16", "10.2.0.1")}))
		if got != "10.1.0.0/16 working, 10.2.0.0/16 unproven" || time.Since(h.start) != 300*time.Millisecond {
			t.Errorf("%s after %v", got, time.Since(h.start))
		}
		h.checkEnd(t)
	})
}

// Runs over one tap come one after the other; who does not get its turn in time says so.
func TestProbesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, p := fakeProber(map[netip.Addr]fate{netip.MustParseAddr("10.2.0.1"): {silent: true}})
		silent := []Target{target("10.2.0.0/16", "10.2.0.1")}
		var runs sync.WaitGroup
		got := make([]string, 3)
		for i := range got {
			runs.Go(func() { got[i] = verdicts(p.Probe(t.Context(), silent)) })
		}
		runs.Wait()
		h.checkEnd(t)
		count := map[string]int{}
		for _, v := range got {
			count[v]++
		}
		if count["10.2.0.0/16 silent"] != 1 || count["10.2.0.0/16 unproven"] != 2 || time.Since(h.start) != budget {
			t.Errorf("%v after %v", count, time.Since(h.start))
		}
	})
}

// Without a network nothing is proven, and nothing else happens.
func TestProbeWithoutNetwork(t *testing.T) {
	p := New(Config{Interface: "culvert0", Tap: NewTap(&discard{})})
	p.open = func() (network, error) { return nil, errors.ErrUnsupported }
	r := p.Probe(t.Context(), []Target{target("10.1.0.0/16", "10.1.0.1")})
	if r[0].Verdict != Unproven || !strings.Contains(r[0].Detail, errors.ErrUnsupported.Error()) {
		t.Errorf("%+v", r[0])
	}
	if got := p.Probe(t.Context(), nil); len(got) != 0 {
		t.Errorf("without targets: %v", got)
	}
}
