//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// smallSubnet is a virtual subnet in which no prefix of the cluster has a twin of its own. It is public, so
// root has to allow it.
const smallSubnet = "211.55.48.0/20"

// poolFlags have all virtual addresses of the pods come from the pool.
var poolFlags = append([]string{"--virtual-ip-subnet", freshSubnet}, virtualFlags...)

// The routes of a VPN that has only a slice of the pods, and endpoints inside and beside it.
const sliceRoutes = "10.132.64.0/18"

var (
	inSlice     = addrs("10.132.64.9", "10.132.127.254", "10.132.100.1", "10.132.64.10", "10.132.96.7")
	besideSlice = addrs("10.132.128.9", "10.132.63.250")
)

func addrs(texts ...string) []netip.Addr {
	list := make([]netip.Addr, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParseAddr(text)
	}
	return list
}

// nativeLimit is the longest time from the VPN's end until the cluster is reached natively again.
const nativeLimit = time.Second

// TestOnlyTheOverlap has a VPN come, go and flap that routes a slice of the pods: pods in there get virtual
// addresses meanwhile, which work until the end whatever the VPN does, and all others keep theirs.
//
//	            VPN up                                  VPN down
//	in slice    name ──► VIP ──► culvert0               name ──► real ──► culvert0, VIP ──► culvert0
//	beside it   name ──► real ──► culvert0              the same
func TestOnlyTheOverlap(t *testing.T) {
	l := shared
	l.useVPN(t, "openvpn", sliceRoutes)
	l.nodeAnswers(t, "10.132.64.0/18", "10.132.63.0/24", "10.132.128.0/24")
	l.headless(t, "inside", inSlice)
	l.headless(t, "beside", besideSlice)
	l.widenLimits(t, freshSubnet)
	t.Run("twins", func(t *testing.T) { l.onlyTheOverlap(t, virtualFlags) })
	t.Run("pool", func(t *testing.T) { l.onlyTheOverlap(t, poolFlags) })
}

func (l *lab) onlyTheOverlap(t *testing.T, flags []string) {
	t.Helper()
	l.vpn(t, "down")
	l.connect(t, flags...)
	book := l.directTwins(t, slices.Concat(inSlice, besideSlice, addrs(l.EchoPod)))
	l.native(t, "before the VPN")
	l.allWork(t, "before the VPN", book)

	events := l.monitor(t)
	l.vpn(t, "up", "openvpn", "--routes", sliceRoutes)
	l.hidden(t, book, 0, 1)
	l.besideIsNative(t)
	l.allWork(t, "with the VPN", book)
	streams := []*stream{l.stream(t, hostPort(slices.Sorted(maps.Keys(book))[0], 7000)), l.stream(t, hostPort(besideSlice[0].String(), 7000))}

	l.nativeSoon(t, events)
	l.allWork(t, "after the VPN", book)
	l.vpn(t, "up")
	l.hidden(t, book, 2, 3)
	for i := range 3 {
		l.vpn(t, "down")
		l.allWork(t, fmt.Sprintf("flap %d, down", i), book)
		l.vpn(t, "up")
		l.allWork(t, fmt.Sprintf("flap %d, up", i), book)
	}
	l.hidden(t, book, 0, 1, 2, 3, 4)
	l.allWork(t, "after flapping", book)
	l.nativeSoon(t, events)
	l.allWork(t, "in the end", book)
	for _, s := range streams {
		s.finish(t)
	}
}

// directTwins returns the virtual addresses that stand for some real ones from the start, with what
// each stands for: none where they come from the pool.
func (l *lab) directTwins(t *testing.T, real []netip.Addr) map[string]string {
	t.Helper()
	book := map[string]string{}
	for _, twin := range l.twins(t).Twins {
		for _, a := range real {
			if twin.Real.Contains(a) && !twin.Pooled {
				vip := twinOf(a, twin.Virtual)
				says(t, l.ask(t, "why", a.String()), 0, vip)
				says(t, l.ask(t, "why", vip), 0, a.String())
				book[vip] = a.String()
			}
		}
	}
	return book
}

// twinOf returns a with the leading bits of virtual.
func twinOf(a netip.Addr, virtual netip.Prefix) string {
	b, v := a.AsSlice(), virtual.Addr().AsSlice()
	for i := range virtual.Bits() {
		mask := byte(0x80) >> (i % 8)
		b[i/8] = b[i/8]&^mask | v[i/8]&mask
	}
	twin, _ := netip.AddrFromSlice(b)
	return twin.String()
}

// native checks that all names are answered with real addresses, which are routed into the tunnel.
func (l *lab) native(t *testing.T, when string) {
	t.Helper()
	for name, real := range sliceNames() {
		if got := l.vips(t, "A", name); !slices.Equal(got, []string{real}) {
			t.Errorf("%s: %s is at %v, want %s", when, name, got, real)
		}
		if way := l.waysOf(t, real)[real]; !through(way) {
			t.Errorf("%s: %s does not go through the tunnel: %s", when, real, way)
		}
	}
	l.reached(t, when, endpoint("inside", 0), inSlice[0].String())
}

// sliceNames are the names of all endpoints and the address of each.
func sliceNames() map[string]string {
	names := map[string]string{}
	for i, a := range inSlice {
		names[endpoint("inside", i)] = a.String()
	}
	for i, a := range besideSlice {
		names[endpoint("beside", i)] = a.String()
	}
	return names
}

// hidden waits until the endpoints in the slice are answered with virtual addresses, the same as earlier
// ones, and enters them into book.
func (l *lab) hidden(t *testing.T, book map[string]string, numbers ...int) {
	t.Helper()
	subnets := l.virtualSubnets(t)
	for _, n := range numbers {
		name, real := endpoint("inside", n), inSlice[n].String()
		var vip string
		took := eventually(t, 3*time.Second, name+" has a virtual address", func() error {
			got := l.vips(t, "A", name)
			if len(got) != 1 || !within(got[0], subnets) {
				return fmt.Errorf("%s is at %v, want one address in %v", name, got, subnets)
			}
			vip = got[0]
			return nil
		})
		if took > nativeLimit {
			t.Errorf("%s has a virtual address %s after the VPN came", name, took)
		}
		for old, stoodFor := range book {
			if (old == vip) != (stoodFor == real) {
				t.Errorf("%s stands for %s now, and %s stood for %s", vip, real, old, stoodFor)
			}
		}
		book[vip] = real
	}
}

// besideIsNative checks what the VPN does not route: real addresses, into the tunnel, and what it does: its.
func (l *lab) besideIsNative(t *testing.T) {
	t.Helper()
	for i, a := range besideSlice {
		l.resolves(t, endpoint("beside", i), a.String())
		l.reached(t, "beside the slice", endpoint("beside", i), a.String())
	}
	l.resolves(t, "echo-headless", l.EchoPod)
	l.resolves(t, "echo", l.EchoIP)
	must(t, l.curl("http://"+l.EchoPod+":8080/"), "GET a pod beside the slice", "pod")
	ways := l.waysOf(t, inSlice[0].String(), besideSlice[0].String(), l.EchoPod)
	if !strings.Contains(ways[inSlice[0].String()], "dev tun0 ") {
		t.Errorf("the slice is not the VPN's: %v", ways)
	}
	for _, a := range []string{besideSlice[0].String(), l.EchoPod} {
		if !through(ways[a]) {
			t.Errorf("%s does not go through the tunnel: %v", a, ways)
		}
	}
}

// allWork checks that every virtual address leads to what it stands for, over TCP and UDP and by ping.
func (l *lab) allWork(t *testing.T, when string, book map[string]string) {
	t.Helper()
	var all sync.WaitGroup
	for vip, real := range book {
		all.Go(func() {
			l.reached(t, when, vip, real)
			l.pings(t, vip)
		})
	}
	all.Wait()
}

// nativeSoon ends the VPN and measures how long it takes until names and routes are native.
func (l *lab) nativeSoon(t *testing.T, events *monitor) {
	t.Helper()
	begin := time.Now()
	l.vpn(t, "down")
	name, real := endpoint("inside", 0), inSlice[0].String()
	eventually(t, 5*time.Second, "native again", func() error {
		got, way := l.vips(t, "A", name), l.waysOf(t, real)[real]
		if !slices.Equal(got, []string{real}) || !through(way) {
			return fmt.Errorf("%s is at %v, %s goes %s", name, got, real, way)
		}
		return nil
	})
	native := time.Now()
	_, gone := events.last(t, begin)
	took := native.Sub(gone)
	t.Logf("native again %s after the VPN's last change, as seen by looking", took.Round(time.Millisecond))
	if took > nativeLimit {
		t.Errorf("native again %s after the VPN's last change, want %s", took, nativeLimit)
	}
	l.native(t, "the VPN gone")
}

// stream is a TCP connection that echoes numbered messages until it is told to stop.
type stream struct {
	*running
	target string
}

// stream starts one and returns when it is connected; finish must be called.
func (l *lab) stream(t *testing.T, target string) *stream {
	t.Helper()
	s := &stream{l.start(t, "lab", "labnet", "session", "--duration", "10m", "--interval", "20ms", target), target}
	eventually(t, 10*time.Second, "a connection to "+target, func() error {
		r := l.WS(5*time.Second, "ss", "-Htnp", "state", "established")
		if !strings.Contains(r.Out, fmt.Sprintf("pid=%d,", s.cmd.Process.Pid)) {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
	return s
}

// finish ends the connection and checks that every message came back over it.
func (s *stream) finish(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Errorf("the connection to %s has ended before: %v", s.target, err)
	}
	err := s.cmd.Wait()
	var session struct {
		Echoes int
		MaxGap float64 `json:"max_gap_ms"`
	}
	if err != nil || json.Unmarshal(s.out.Bytes(), &session) != nil || session.Echoes < 10 {
		t.Errorf("the connection to %s: %v: %s%s", s.target, err, &s.out, &s.err)
	}
	t.Logf("the connection to %s echoed %d messages, the slowest in %.0f ms", s.target, session.Echoes, session.MaxGap)
}
