package peers

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// fakeHost is a WireGuard device and a data plane that write down what is asked of them.
type fakeHost struct {
	mu    sync.Mutex
	peers map[wgtypes.Key]wgtypes.Peer
	plane []Served
	steps []string
	fail  error // returned by Configure
}

func newFakeHost() *fakeHost { return &fakeHost{peers: map[wgtypes.Key]wgtypes.Peer{}} }

func (h *fakeHost) Configure(cfg wgtypes.Config) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		h.steps = append(h.steps, "wg fails")
		return h.fail
	}
	var words []string
	for _, p := range cfg.Peers {
		if p.Remove {
			delete(h.peers, p.PublicKey)
			words = append(words, "-"+nameOf(p.PublicKey))
			continue
		}
		old := h.peers[p.PublicKey]
		old.PublicKey, old.AllowedIPs = p.PublicKey, p.AllowedIPs
		h.peers[p.PublicKey] = old
		words = append(words, "+"+nameOf(p.PublicKey))
	}
	h.steps = append(h.steps, "wg "+strings.Join(words, " "))
	return nil
}

func (h *fakeHost) Status() (wgtypes.Device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var d wgtypes.Device
	for _, p := range h.peers {
		d.Peers = append(d.Peers, p)
	}
	return d, nil
}

func (h *fakeHost) SetPeers(list []Served) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.plane = slices.Clone(list)
	words := []string{"plane"}
	for _, s := range list {
		words = append(words, nameOf(s.Key))
	}
	h.steps = append(h.steps, strings.Join(words, " "))
}

// took returns the steps since the last call.
func (h *fakeHost) took() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := strings.Join(h.steps, ", ")
	h.steps = nil
	return out
}

func (h *fakeHost) admits(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, configured := h.peers[keyOf(name)]
	return configured && slices.ContainsFunc(h.plane, func(s Served) bool { return s.Key == keyOf(name) })
}

// nameOf is the inverse of keyOf.
func nameOf(k wgtypes.Key) string { return strings.TrimRight(string(k[:31]), "\x00") }

func servedPeer(name, key string, addrs ...string) Served {
	s := Served{Ref: Ref{name, types.UID("uid-" + name)}, Key: keyOf(key)}
	for _, a := range addrs {
		s.Addrs = append(s.Addrs, netip.MustParseAddr(a))
	}
	return s
}

// twinned returns s with twins, read from "REAL VIRTUAL" pairs.
func twinned(s Served, pairs string) Served {
	m, no := parseTwins(twinsOf(pairs), nil)
	if no != nil {
		panic(no)
	}
	s.Twins = m
	return s
}

func TestApplyOrder(t *testing.T) {
	a := servedPeer("a", "ka", "245.0.0.2", "fd00::2")
	b, c := servedPeer("b", "kb", "245.0.0.4"), servedPeer("c", "kc", "245.0.0.6")
	h := newFakeHost()
	var now []Served
	for _, step := range []struct {
		name string
		next []Served
		want string
	}{
		{"nothing to do", nil, ""},
		{"first", []Served{a}, "wg +ka, plane ka"},
		{"the same again", []Served{a}, ""},
		{"another", []Served{a, b}, "wg +kb, plane ka kb"},
		{"one leaves", []Served{b}, "plane kb, wg -ka"},
		{"another order", []Served{b}, ""},
		{"a new key", []Served{servedPeer("b", "kb2", "245.0.0.4")}, "plane, wg -kb +kb2, plane kb2"},
		{"the address changes hands", []Served{servedPeer("c", "kc", "245.0.0.4")}, "plane, wg -kb2 +kc, plane kc"},
		{"made again with key and address", []Served{{Ref: Ref{"c", "uid-c2"}, Key: keyOf("kc"), Addrs: []netip.Addr{netip.MustParseAddr("245.0.0.4")}}}, "plane, plane kc"},
		{"another address", []Served{servedPeer("c", "kc", "245.0.0.6")}, "plane, wg +kc, plane kc"},
		{"twins", []Served{twinned(c, "10.130.0.0/16 246.130.0.0/16")}, "plane kc"},
		{"the same twins", []Served{twinned(c, "10.130.0.0/16 246.130.0.0/16")}, ""},
		{"other twins", []Served{twinned(c, "10.130.0.0/16 247.130.0.0/16")}, "plane kc"},
		{"another comes with twins", []Served{twinned(c, "10.130.0.0/16 247.130.0.0/16"), twinned(a, "10.130.0.0/16 247.130.0.0/16")}, "wg +ka, plane kc ka"},
		{"one leaves, the other's twins change", []Served{twinned(c, "10.131.0.0/16 247.130.0.0/16")}, "plane kc, wg -ka, plane kc"},
		{"no twins", []Served{c}, "plane kc"},
		{"everybody leaves", nil, "plane, wg -kc"},
	} {
		admitted, err := apply(h, h, now, step.next)
		if err != nil {
			t.Fatal(step.name, err)
		}
		if got := h.took(); got != step.want {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
		now = admitted
	}
}

func TestApplyRepairsDrift(t *testing.T) {
	a := servedPeer("a", "ka", "245.0.0.2")
	h := newFakeHost()
	now, _ := apply(h, h, nil, []Served{a})
	h.took()
	delete(h.peers, keyOf("ka"))
	h.peers[keyOf("stranger")] = wgtypes.Peer{PublicKey: keyOf("stranger")}
	if _, err := apply(h, h, now, []Served{a}); err != nil {
		t.Fatal(err)
	}
	if got := h.took(); got != "wg -stranger +ka" {
		t.Errorf("repaired by %q", got)
	}
}

func TestApplyAdmitsNobodyNewWhenTheDeviceFails(t *testing.T) {
	a, b := servedPeer("a", "ka", "245.0.0.2"), servedPeer("b", "kb", "245.0.0.4")
	h := newFakeHost()
	now, _ := apply(h, h, nil, []Served{a})
	h.took()
	h.fail = fmt.Errorf("out of memory")
	now, err := apply(h, h, now, []Served{b})
	if err == nil || len(now) != 0 {
		t.Errorf("admitted %v, error %v", now, err)
	}
	if got := h.took(); got != "plane, wg fails" {
		t.Errorf("steps %q", got)
	}
	h.fail = nil
	if now, err = apply(h, h, now, []Served{b}); err != nil || len(now) != 1 || h.took() != "wg -ka +kb, plane kb" {
		t.Errorf("after recovery admitted %v, error %v", now, err)
	}
}

// While the device fails nothing of the change is applied, and it is tried again.
func TestApplyKeepsOldTwinsWhenTheDeviceFails(t *testing.T) {
	a, b := servedPeer("a", "ka", "245.0.0.2"), servedPeer("b", "kb", "245.0.0.4")
	h := newFakeHost()
	now, _ := apply(h, h, nil, []Served{a})
	h.took()
	h.fail = fmt.Errorf("out of memory")
	next := []Served{twinned(a, "10.130.0.0/16 246.130.0.0/16"), b}
	now, err := apply(h, h, now, next)
	if err == nil || len(now) != 1 || len(now[0].Twins) != 0 || h.took() != "wg fails" {
		t.Errorf("admitted %v, error %v", now, err)
	}
	h.fail = nil
	if now, err = apply(h, h, now, next); err != nil || len(now[0].Twins) != 1 || h.took() != "wg +kb, plane ka kb" || len(h.plane[0].Twins) != 1 {
		t.Errorf("after recovery admitted %v, error %v", now, err)
	}
}

func TestLedger(t *testing.T) {
	p := peer("a", 0, "245.0.0.2/32", func(p *v1alpha1.Peer) { p.Status.ReceivedBytes, p.Status.SentBytes = 1000, 10 })
	l, served := ledger{}, []Served{servedPeer("a", "ka", "245.0.0.2")}
	device := func(key string, received, sent int64, handshake time.Time) []wgtypes.Peer {
		return []wgtypes.Peer{{PublicKey: keyOf(key), ReceiveBytes: received, TransmitBytes: sent, LastHandshakeTime: handshake}}
	}
	for _, step := range []struct {
		name   string
		served []Served
		device []wgtypes.Peer
		now    time.Time
		want   string
	}{
		{"taken up from the status", served, nil, noon, "1000/10 never"},
		{"no handshake yet (the Unix epoch)", served, device("ka", 0, 148, time.Unix(0, 0)), noon, "1000/158 never"},
		{"first traffic", served, device("ka", 50, 200, noon), noon, "1050/210 12:00 apiserver"},
		{"more", served, device("ka", 70, 200, noon), noon.Add(time.Minute), "1070/210 12:00 apiserver"},
		{"the peer was configured anew", served, device("ka", 5, 1, time.Time{}), noon.Add(2 * time.Minute), "1075/211 12:00 apiserver"},
		{"nothing for long", served, device("ka", 5, 1, time.Time{}), noon.Add(4 * time.Minute), "1075/211 12:00"},
		{"another key", []Served{servedPeer("a", "kb", "245.0.0.2")}, device("kb", 9, 9, noon.Add(5*time.Minute)), noon.Add(5 * time.Minute), "1084/220 12:05 apiserver"},
		{"not served", nil, nil, noon.Add(9 * time.Minute), "1084/220 12:05 apiserver"},
	} {
		l.read([]v1alpha1.Peer{p}, step.served, step.device, step.now)
		tr := l.totals()[p.UID]
		got := fmt.Sprintf("%d/%d never", tr.Received, tr.Sent)
		if !tr.LastHandshake.IsZero() {
			got = fmt.Sprintf("%d/%d %s", tr.Received, tr.Sent, tr.LastHandshake.Format("15:04"))
		}
		if got = strings.TrimSpace(got + " " + tr.CarrierInUse); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
	l.read(nil, nil, nil, noon)
	if len(l) != 0 {
		t.Error("the account of a Peer that is gone stays")
	}
}

func TestSameAddrs(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("245.0.0.2"), netip.MustParseAddr("fd00::2")}
	if !sameAddrs(ipNets(addrs), addrs) {
		t.Error("what we write does not read back as the same")
	}
	mapped := net.IPNet{IP: net.ParseIP("245.0.0.2"), Mask: net.CIDRMask(32, 32)} // 16 bytes, as parsers return
	if !sameAddrs([]net.IPNet{ipNets(addrs)[1], mapped}, addrs) {
		t.Error("another order and form is not the same")
	}
	wide := net.IPNet{IP: net.IPv4(245, 0, 0, 2), Mask: net.CIDRMask(24, 32)}
	if sameAddrs([]net.IPNet{wide}, addrs[:1]) {
		t.Error("a wider prefix is the same")
	}
}
