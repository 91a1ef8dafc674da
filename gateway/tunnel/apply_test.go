package tunnel_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/gateway/tunnel"
	"github.com/culvert-dev/culvert/gateway/tunnel/tunneltest"
	"github.com/culvert-dev/culvert/gateway/twins"
)

// peer is one with addresses, each of which has its odd neighbour for the gateway's.
func peer(name, key string, addrs ...string) tunnel.Peer {
	p := tunnel.Peer{Name: name, ID: "uid-" + name, Key: tunneltest.Key(key)}
	for _, a := range addrs {
		p.Node = append(p.Node, netip.MustParseAddr(a))
		p.Gateway = append(p.Gateway, netip.MustParseAddr(a).Next())
	}
	return p
}

// twinned returns p with twins, read from "REAL VIRTUAL" pairs.
func twinned(p tunnel.Peer, pairs string) tunnel.Peer {
	p.Twins = nil
	for words := strings.Fields(pairs); len(words) > 1; words = words[2:] {
		p.Twins = append(p.Twins, twins.Twin{Real: netip.MustParsePrefix(words[0]), Virtual: netip.MustParsePrefix(words[1])})
	}
	return p
}

func TestApplyOrder(t *testing.T) {
	a := peer("a", "ka", "245.0.0.2", "fd00::2")
	b, c := peer("b", "kb", "245.0.0.4"), peer("c", "kc", "245.0.0.6")
	madeAgain, fork := peer("c", "kc", "245.0.0.4"), peer("c", "kc", "245.0.0.6")
	madeAgain.ID, fork.Gateway[0] = "uid-c2", netip.MustParseAddr("245.0.0.9")
	h := tunneltest.NewHost()
	var now []tunnel.Peer
	for _, step := range []struct {
		name string
		next []tunnel.Peer
		want string
	}{
		{"nothing to do", nil, ""},
		{"first", []tunnel.Peer{a}, "wg +ka, plane ka"},
		{"the same again", []tunnel.Peer{a}, ""},
		{"another", []tunnel.Peer{a, b}, "wg +kb, plane ka kb"},
		{"one leaves", []tunnel.Peer{b}, "plane kb, wg -ka"},
		{"another order", []tunnel.Peer{b}, ""},
		{"a new key", []tunnel.Peer{peer("b", "kb2", "245.0.0.4")}, "plane, wg -kb +kb2, plane kb2"},
		{"the address changes hands", []tunnel.Peer{peer("c", "kc", "245.0.0.4")}, "plane, wg -kb2 +kc, plane kc"},
		{"made again with key and address", []tunnel.Peer{madeAgain}, "plane, plane kc"},
		{"another address", []tunnel.Peer{peer("c", "kc", "245.0.0.6")}, "plane, wg +kc, plane kc"},
		{"another address of the gateway", []tunnel.Peer{fork}, "plane, plane kc"},
		{"and back", []tunnel.Peer{c}, "plane, plane kc"},
		{"twins", []tunnel.Peer{twinned(c, "10.130.0.0/16 246.130.0.0/16")}, "plane kc"},
		{"the same twins", []tunnel.Peer{twinned(c, "10.130.0.0/16 246.130.0.0/16")}, ""},
		{"other twins", []tunnel.Peer{twinned(c, "10.130.0.0/16 247.130.0.0/16")}, "plane kc"},
		{"another comes with twins", []tunnel.Peer{twinned(c, "10.130.0.0/16 247.130.0.0/16"), twinned(a, "10.130.0.0/16 247.130.0.0/16")}, "wg +ka, plane kc ka"},
		{"one leaves, the other's twins change", []tunnel.Peer{twinned(c, "10.131.0.0/16 247.130.0.0/16")}, "plane kc, wg -ka, plane kc"},
		{"no twins", []tunnel.Peer{c}, "plane kc"},
		{"everybody leaves", nil, "plane, wg -kc"},
	} {
		admitted, err := tunnel.Apply(h, h, now, step.next)
		if err != nil {
			t.Fatal(step.name, err)
		}
		if got := h.Took(); got != step.want {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
		now = admitted
	}
}

func TestApplyRepairsDrift(t *testing.T) {
	a := peer("a", "ka", "245.0.0.2")
	h := tunneltest.NewHost()
	now, _ := tunnel.Apply(h, h, nil, []tunnel.Peer{a})
	h.Took()
	h.Change(func(peers map[wgtypes.Key]wgtypes.Peer) {
		delete(peers, tunneltest.Key("ka"))
		peers[tunneltest.Key("stranger")] = wgtypes.Peer{PublicKey: tunneltest.Key("stranger")}
	})
	if _, err := tunnel.Apply(h, h, now, []tunnel.Peer{a}); err != nil {
		t.Fatal(err)
	}
	if got := h.Took(); got != "wg -stranger +ka" {
		t.Errorf("repaired by %q", got)
	}
}

func TestApplyAdmitsNobodyNewWhenTheDeviceFails(t *testing.T) {
	a, b := peer("a", "ka", "245.0.0.2"), peer("b", "kb", "245.0.0.4")
	h := tunneltest.NewHost()
	now, _ := tunnel.Apply(h, h, nil, []tunnel.Peer{a})
	h.Took()
	h.Fail(errors.New("out of memory"))
	now, err := tunnel.Apply(h, h, now, []tunnel.Peer{b})
	if err == nil || len(now) != 0 {
		t.Errorf("admitted %v, error %v", now, err)
	}
	if got := h.Took(); got != "plane, wg fails" {
		t.Errorf("steps %q", got)
	}
	h.Fail(nil)
	if now, err = tunnel.Apply(h, h, now, []tunnel.Peer{b}); err != nil || len(now) != 1 || h.Took() != "wg -ka +kb, plane kb" {
		t.Errorf("after recovery admitted %v, error %v", now, err)
	}
}

// While the device fails nothing of the change is applied, and it is tried again.
func TestApplyKeepsOldTwinsWhenTheDeviceFails(t *testing.T) {
	a, b := peer("a", "ka", "245.0.0.2"), peer("b", "kb", "245.0.0.4")
	h := tunneltest.NewHost()
	now, _ := tunnel.Apply(h, h, nil, []tunnel.Peer{a})
	h.Took()
	h.Fail(errors.New("out of memory"))
	next := []tunnel.Peer{twinned(a, "10.130.0.0/16 246.130.0.0/16"), b}
	now, err := tunnel.Apply(h, h, now, next)
	if err == nil || len(now) != 1 || len(now[0].Twins) != 0 || h.Took() != "wg fails" {
		t.Errorf("admitted %v, error %v", now, err)
	}
	h.Fail(nil)
	if now, err = tunnel.Apply(h, h, now, next); err != nil || len(now[0].Twins) != 1 || h.Took() != "wg +kb, plane ka kb" || len(h.Plane()[0].Twins) != 1 {
		t.Errorf("after recovery admitted %v, error %v", now, err)
	}
}
