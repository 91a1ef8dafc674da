package peers

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/gateway/overlay"
	"github.com/culvert-dev/culvert/gateway/tunnel"
	"github.com/culvert-dev/culvert/gateway/tunnel/tunneltest"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

var (
	noon    = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	ownKey  = keyOf("gateway")
	gateway = v1alpha1.PeerGateway{Pod: "culvert-gateway-0", PodUID: "pod-1", PublicKey: ownKey.String(), Version: "0.1.0", CarrierPort: 7831}
)

// keyOf returns a public key that stands for name.
func keyOf(name string) wgtypes.Key { return tunneltest.Key(name) }

// peer is a valid Peer made at noon plus age order; edit changes it.
func peer(name string, minute int, addrs string, edit ...func(*v1alpha1.Peer)) v1alpha1.Peer {
	p := v1alpha1.Peer{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), Generation: 3, ResourceVersion: "7",
			CreationTimestamp: metav1.Time{Time: noon.Add(time.Duration(minute) * time.Minute)}},
		Spec: v1alpha1.PeerSpec{User: "ann", PublicKey: keyOf(name).String(), Addresses: strings.Fields(addrs)},
	}
	for _, e := range edit {
		e(&p)
	}
	return p
}

func withKey(k wgtypes.Key) func(*v1alpha1.Peer) {
	return func(p *v1alpha1.Peer) { p.Spec.PublicKey = k.String() }
}

func rawKey(s string) func(*v1alpha1.Peer) {
	return func(p *v1alpha1.Peer) { p.Spec.PublicKey = s }
}

// input is a plan's input at noon plus an hour.
func input(peers ...v1alpha1.Peer) Input {
	return Input{Peers: peers, Gateway: gateway, Key: ownKey, Started: noon, Now: noon.Add(time.Hour),
		Reserved: []netip.Prefix{netip.MustParsePrefix("10.130.0.0/16"), netip.MustParsePrefix("250.0.0.0/8"), netip.MustParsePrefix("fd00:132::/56")}}
}

// summary prints who is answered how, such as "a:Accepted b:DuplicateKey", in the plan's order.
func summary(plan Plan) string {
	var out []string
	for _, a := range plan.Answers {
		out = append(out, a.Name+":"+a.Status.Conditions[0].Reason)
	}
	for _, r := range plan.Silent {
		out = append(out, r.Name+":delete")
	}
	return strings.Join(out, " ")
}

// twinsOf reads "REAL VIRTUAL" pairs.
func twinsOf(pairs string) (out []v1alpha1.Twin) {
	for words := strings.Fields(pairs); len(words) > 1; words = words[2:] {
		out = append(out, v1alpha1.Twin{Real: words[0], Virtual: words[1]})
	}
	return out
}

// manyTwins returns n twins in the form of twinsOf.
func manyTwins(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "10.%d.0.0/16 246.%d.0.0/16 ", i, i)
	}
	return b.String()
}

func TestNewPlan(t *testing.T) {
	deleted := func(p *v1alpha1.Peer) { p.DeletionTimestamp = &metav1.Time{Time: noon} }
	twins := func(pairs string) func(*v1alpha1.Peer) {
		return func(p *v1alpha1.Peer) { p.Spec.Twins = twinsOf(pairs) }
	}
	one := func(pairs string) []v1alpha1.Peer {
		return []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32 fd7a:1::4/128", twins(pairs))}
	}
	for _, row := range []struct {
		name  string
		peers []v1alpha1.Peer
		max   int
		want  string
	}{
		{"nobody", nil, 0, ""},
		{"one, dual stack", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32 fd7a:1::4/128")}, 0, "a:Accepted"},
		{"IPv6 first", []v1alpha1.Peer{peer("a", 0, "fd7a:1::4/128 245.1.2.4/32")}, 0, "a:Accepted"},
		{"IPv4 alone", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32")}, 0, "a:Accepted"},
		{"IPv6 alone", []v1alpha1.Peer{peer("a", 0, "fd7a:1::4/128")}, 0, "a:Accepted"},
		{"being deleted", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32", deleted), peer("b", 1, "245.1.2.4/32", withKey(keyOf("a")))}, 0, "b:Accepted"},

		{"no address", []v1alpha1.Peer{peer("a", 0, "")}, 0, "a:InvalidSpec"},
		{"three addresses", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32 fd7a:1::4/128 245.1.2.6/32")}, 0, "a:InvalidSpec"},
		{"two of a family", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32 245.1.2.6/32")}, 0, "a:InvalidSpec"},
		{"a private address", []v1alpha1.Peer{peer("a", 0, "10.1.2.4/32")}, 0, "a:InvalidSpec"},
		{"a public IPv6 address", []v1alpha1.Peer{peer("a", 0, "2001:db8::4/128")}, 0, "a:InvalidSpec"},
		{"a whole prefix", []v1alpha1.Peer{peer("a", 0, "245.0.0.0/8")}, 0, "a:InvalidSpec"},
		{"everything", []v1alpha1.Peer{peer("a", 0, "0.0.0.0/0 ::/0")}, 0, "a:InvalidSpec"},
		{"odd, the gateway's side", []v1alpha1.Peer{peer("a", 0, "245.1.2.5/32")}, 0, "a:InvalidSpec"},
		{"beside the broadcast address", []v1alpha1.Peer{peer("a", 0, "255.255.255.254/32")}, 0, "a:InvalidSpec"},
		{"mapped", []v1alpha1.Peer{peer("a", 0, "::ffff:245.1.2.4/128")}, 0, "a:InvalidSpec"},
		{"with a zone", []v1alpha1.Peer{peer("a", 0, "fd7a:1::4%eth0/128")}, 0, "a:InvalidSpec"},
		{"no prefix length", []v1alpha1.Peer{peer("a", 0, "245.1.2.4")}, 0, "a:InvalidSpec"},
		{"long rubbish", []v1alpha1.Peer{peer("a", 0, strings.Repeat("x", 1<<20))}, 0, "a:InvalidSpec"},
		{"no key", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32", rawKey(""))}, 0, "a:InvalidSpec"},
		{"short key", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32", rawKey("AAAA"))}, 0, "a:InvalidSpec"},
		{"key of rubbish", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32", rawKey(strings.Repeat("!", 44)))}, 0, "a:InvalidSpec"},
		{"zero key", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32", withKey(wgtypes.Key{}))}, 0, "a:InvalidSpec"},
		{"the gateway's key", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32", withKey(ownKey))}, 0, "a:InvalidSpec"},

		{"twins", one("10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16 fd00:132::/56 fd7a:2::/56"), 0, "a:Accepted"},
		{"as many twins as may be", one(manyTwins(64)), 0, "a:Accepted"},
		{"one twin too many", one(manyTwins(65)), 0, "a:InvalidSpec"},
		{"a real prefix within another", one("10.0.0.0/8 246.0.0.0/8 10.130.0.0/16 247.130.0.0/16"), 0, "a:Accepted"},
		{"a twin for whatever egress refuses", one("127.0.0.0/8 246.0.0.0/8 169.254.169.254/32 247.0.0.1/32 245.9.9.8/32 247.0.0.2/32"), 0, "a:Accepted"},
		{"two twins for one", one("10.130.0.0/16 246.130.0.0/16 10.130.0.0/16 246.132.0.0/16"), 0, "a:InvalidSpec"},
		{"twins that overlap", one("10.130.0.0/16 246.130.0.0/16 10.132.4.0/24 246.130.4.0/24"), 0, "a:InvalidSpec"},
		{"a twin over its own address", one("10.130.0.0/16 245.1.0.0/16"), 0, "a:InvalidSpec"},
		{"a twin over its gateway's address", one("10.130.0.1/32 245.1.2.5/32"), 0, "a:InvalidSpec"},
		{"a twin over its IPv6 link", one("fd00:132::/64 fd7a:1::/64"), 0, "a:InvalidSpec"},
		{"a twin beside its own address", one("10.130.0.6/32 245.1.2.6/32"), 0, "a:Accepted"},
		{"a twin in private space", one("10.130.0.0/16 10.140.0.0/16"), 0, "a:InvalidSpec"},
		{"a twin around the space of twins", one("64.0.0.0/2 192.0.0.0/2"), 0, "a:InvalidSpec"},
		{"a public IPv6 twin", one("fd00:132::/56 2001:db8::/56"), 0, "a:InvalidSpec"},
		{"a twin over the broadcast address", one("10.255.0.0/16 255.255.0.0/16"), 0, "a:InvalidSpec"},
		{"a twin for multicast", one("224.0.0.0/8 246.0.0.0/8"), 0, "a:InvalidSpec"},
		{"a twin for IPv6 multicast", one("ff02::/16 fd7a::/16"), 0, "a:InvalidSpec"},
		{"a twin of another length", one("10.130.0.0/16 246.0.0.0/8"), 0, "a:InvalidSpec"},
		{"a twin of another family", one("10.130.0.0/16 fd7a::/16"), 0, "a:InvalidSpec"},
		{"a twin with host bits", one("10.130.0.0/16 246.130.0.1/16"), 0, "a:InvalidSpec"},
		{"a twin for host bits", one("10.130.0.1/16 246.130.0.0/16"), 0, "a:InvalidSpec"},
		{"a mapped twin", one("::ffff:10.0.0.0/104 fd00::/104"), 0, "a:InvalidSpec"},
		{"a twin for rubbish", one(strings.Repeat("x", 1<<16) + " 246.0.0.0/8"), 0, "a:InvalidSpec"},
		{"a twin of rubbish", one("10.0.0.0/8 " + strings.Repeat("x", 1<<16)), 0, "a:InvalidSpec"},
		{"a twin over a cluster's class E pods", one("10.130.0.0/16 250.130.0.0/16"), 0, "a:AddressConflict"},
		{"a twin around a cluster's unique local pods", one("fd00:1::/32 fd00:132::/32"), 0, "a:AddressConflict"},
		{"a twin over a cluster's unique local pods", one("2001:db8::/48 fd00:132::/48"), 0, "a:AddressConflict"},
		{"two Peers, the same twins for others", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32", twins("10.130.0.0/16 246.130.0.0/16")),
			peer("b", 1, "245.1.2.6/32", twins("10.140.0.0/16 246.130.0.0/16"))}, 0, "a:Accepted b:Accepted"},
		{"a twin over another Peer's addresses", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32", twins("10.9.0.0/16 245.9.0.0/16")),
			peer("b", 1, "245.9.9.8/32", twins("10.1.0.0/16 245.1.0.0/16"))}, 0, "a:Accepted b:Accepted"},
		{"the refused for their twins hold nothing", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32", twins("10.130.0.0/16 250.130.0.0/16")),
			peer("b", 1, "245.1.2.4/32", withKey(keyOf("a")))}, 0, "a:AddressConflict b:Accepted"},

		{"one key twice: the oldest", []v1alpha1.Peer{peer("a", 5, "245.1.2.4/32", withKey(keyOf("k"))), peer("z", 0, "245.1.2.6/32", withKey(keyOf("k")))}, 0,
			"z:Accepted a:DuplicateKey"},
		{"one key twice at once: by name", []v1alpha1.Peer{peer("z", 0, "245.1.2.4/32", withKey(keyOf("k"))), peer("a", 0, "245.1.2.6/32", withKey(keyOf("k")))}, 0,
			"a:Accepted z:DuplicateKey"},
		{"one address twice", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32"), peer("b", 1, "245.1.2.4/32")}, 0, "a:Accepted b:AddressConflict"},
		{"one IPv6 address twice", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32 fd7a:1::4/128"), peer("b", 1, "245.1.2.6/32 fd7a:1::4/128")}, 0,
			"a:Accepted b:AddressConflict"},
		{"the refused hold nothing", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32"), peer("b", 1, "245.1.2.6/32", withKey(keyOf("a"))), peer("c", 2, "245.1.2.6/32"),
			peer("d", 3, "245.1.2.7/32"), peer("e", 4, "245.1.2.8/32", withKey(keyOf("d")))}, 0,
			"a:Accepted b:DuplicateKey c:Accepted d:InvalidSpec e:Accepted"},
		{"neighbours", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32"), peer("b", 1, "245.1.2.6/32")}, 0, "a:Accepted b:Accepted"},
		{"in a cluster's class E pods", []v1alpha1.Peer{peer("a", 0, "250.1.2.4/32")}, 0, "a:AddressConflict"},
		{"in a cluster's unique local pods", []v1alpha1.Peer{peer("a", 0, "fd00:132::4/128")}, 0, "a:AddressConflict"},
		{"too many", []v1alpha1.Peer{peer("a", 0, "245.1.2.4/32"), peer("b", 1, "245.1.2.6/32"), peer("c", 2, "245.1.2.8/32")}, 2,
			"a:Accepted b:Accepted c:TooManyPeers"},
	} {
		t.Run(row.name, func(t *testing.T) {
			in := input(row.peers...)
			in.MaxPeers = row.max
			plan := NewPlan(in)
			if got := summary(plan); got != row.want {
				t.Fatalf("got  %s\nwant %s", got, row.want)
			}
			for _, p := range plan.Served {
				if len(p.Gateway) != len(p.Node) || slices.ContainsFunc(p.Node, func(a netip.Addr) bool { return !slices.Contains(p.Gateway, policy.GatewayAddr(a)) }) {
					t.Errorf("%s: the gateway is %v to %v", p.Name, p.Gateway, p.Node)
				}
			}
			for _, a := range plan.Answers {
				accepted := a.Status.Conditions[0].Reason == v1alpha1.ReasonAccepted
				if isServed := slices.ContainsFunc(plan.Served, func(s tunnel.Peer) bool { return s.Name == a.Name && s.ID == string(a.UID) }); isServed != accepted {
					t.Errorf("%s: accepted %v, served %v", a.Name, accepted, isServed)
				}
				if (a.Status.Gateway != nil) != accepted {
					t.Errorf("%s: accepted %v, gateway %v", a.Name, accepted, a.Status.Gateway)
				}
				if n := len(a.Status.Conditions[0].Message); n == 0 || n > 200 {
					t.Errorf("%s: message of %d characters", a.Name, n)
				}
			}
		})
	}
}

// Everybody can read the keys of others and make a Peer with them, or change an own one.
func TestNobodyTakesOverAClaim(t *testing.T) {
	version := func(v string) func(*v1alpha1.Peer) { return func(p *v1alpha1.Peer) { p.ResourceVersion = v } }
	answered := func(reason string, generation int64) func(*v1alpha1.Peer) {
		return func(p *v1alpha1.Peer) {
			p.Status.Conditions = []metav1.Condition{{Type: v1alpha1.PeerReady, Reason: reason, ObservedGeneration: generation}}
		}
	}
	const now, before = 3, 2 // generations
	for _, row := range []struct {
		name         string
		hers, taking []func(*v1alpha1.Peer) // "taking" sorts first by name
		minute       int                    // age of "taking" against hers
	}{
		{"in the same second, before anybody is served", edits(version("98")), edits(version("101")), 0},
		{"in the same second, once she is served", edits(version("103"), answered(v1alpha1.ReasonAccepted, now)), edits(version("101")), 0},
		{"by a clock that is behind", edits(answered(v1alpha1.ReasonAccepted, now)), edits(), -1},
		{"while she changes her twins", edits(answered(v1alpha1.ReasonAccepted, before)), edits(answered(v1alpha1.ReasonDuplicateKey, now)), -1},
		{"while the gateway is replaced", edits(answered(v1alpha1.ReasonGatewayShutdown, now)), edits(answered(v1alpha1.ReasonDuplicateKey, now)), -1},
		{"by changing an older one that is served", edits(answered(v1alpha1.ReasonAccepted, now)), edits(answered(v1alpha1.ReasonAccepted, before)), -60},
	} {
		for claim, edit := range map[string]func(*v1alpha1.Peer){
			v1alpha1.ReasonDuplicateKey:    withKey(keyOf("hers")),
			v1alpha1.ReasonAddressConflict: func(p *v1alpha1.Peer) { p.Spec.Addresses = []string{"245.1.2.4/32"} },
		} {
			in := input(peer("a-taking", row.minute, "245.1.2.6/32", append(row.taking, edit)...), peer("hers", 0, "245.1.2.4/32", row.hers...))
			for range 2 { // whatever the order
				slices.Reverse(in.Peers)
				got := map[string]string{}
				for _, a := range NewPlan(in).Answers {
					got[a.Name] = a.Status.Conditions[0].Reason
				}
				if got["hers"] != v1alpha1.ReasonAccepted || got["a-taking"] != claim {
					t.Errorf("%s: %v, want %s for the other alone", row.name, got, claim)
				}
			}
		}
	}
}

func edits(list ...func(*v1alpha1.Peer)) []func(*v1alpha1.Peer) { return slices.Clip(list) }

func TestTheLimitIsShared(t *testing.T) {
	by := func(user string) func(*v1alpha1.Peer) { return func(p *v1alpha1.Peer) { p.Spec.User = user } }
	heard := func(minute int) func(*v1alpha1.Peer) {
		return func(p *v1alpha1.Peer) {
			p.Status.LastHandshake = &metav1.Time{Time: noon.Add(time.Duration(minute) * time.Minute)}
		}
	}
	const old = -24 * 60 // minutes before noon
	for _, row := range []struct {
		name  string
		peers []v1alpha1.Peer
		want  string // who is refused at a limit of 3
	}{
		{"one user after another", []v1alpha1.Peer{peer("a1", 0, "245.1.0.0/32", by("ann")), peer("b1", 1, "245.1.0.2/32", by("bob")),
			peer("c1", 2, "245.1.0.4/32", by("cy")), peer("d1", 3, "245.1.0.6/32", by("di"))}, "d1"},
		{"one user makes many", []v1alpha1.Peer{peer("a1", 0, "245.1.0.0/32", by("ann")), peer("a2", 1, "245.1.0.2/32", by("ann")),
			peer("a3", 2, "245.1.0.4/32", by("ann")), peer("a4", 3, "245.1.0.6/32", by("ann")), peer("b1", 4, "245.1.0.8/32", by("bob")), peer("c1", 5, "245.1.0.10/32", by("cy"))},
			"a2 a3 a4"},
		{"those left behind give way", []v1alpha1.Peer{peer("a1", old, "245.1.0.0/32"), peer("a2", old+1, "245.1.0.2/32"),
			peer("a3", old+2, "245.1.0.4/32", heard(-90)), peer("a4", 3, "245.1.0.6/32"), peer("a5", 4, "245.1.0.8/32")}, "a1 a2"},
		{"those at work do not", []v1alpha1.Peer{peer("a1", old, "245.1.0.0/32", heard(50)), peer("a2", old+1, "245.1.0.2/32", heard(10)),
			peer("a3", old+2, "245.1.0.4/32", heard(30)), peer("a4", 59, "245.1.0.6/32")}, "a4"},
		{"the refused hold no place", []v1alpha1.Peer{peer("a1", 0, "245.1.0.1/32"), peer("a2", 1, "245.1.0.2/32"),
			peer("a3", 2, "245.1.0.4/32"), peer("a4", 3, "245.1.0.6/32")}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			in := input(row.peers...)
			in.MaxPeers = 3
			var refused []string
			for _, a := range NewPlan(in).Answers {
				if a.Status.Conditions[0].Reason == v1alpha1.ReasonTooManyPeers {
					refused = append(refused, a.Name)
				}
			}
			if got := strings.Join(refused, " "); got != row.want {
				t.Errorf("refused %q, want %q", got, row.want)
			}
		})
	}
}

func TestAnswerOfAServedPeer(t *testing.T) {
	p := peer("a", 0, "fd7a:1::4/128 245.1.2.4/32", func(p *v1alpha1.Peer) {
		p.Status = v1alpha1.PeerStatus{ReceivedBytes: 100, Conditions: []metav1.Condition{
			{Type: v1alpha1.PeerReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAccepted, LastTransitionTime: metav1.Time{Time: noon}},
			{Type: "Mystery"}}}
	})
	in := input(p)
	in.Traffic = map[types.UID]Traffic{p.UID: {LastHandshake: noon.Add(1500 * time.Millisecond), Received: 5000, Sent: 70, CarrierInUse: "apiserver"}}
	s := NewPlan(in).Answers[0].Status
	if got := fmt.Sprintln(s.Gateway.DNS, s.Gateway.PodUID, s.Gateway.PublicKey == ownKey.String()); got != "[245.1.2.5 fd7a:1::5] pod-1 true\n" {
		t.Errorf("gateway is %s", got)
	}
	if s.ObservedGeneration != 3 || s.ReceivedBytes != 5000 || s.SentBytes != 70 || s.Carrier != "apiserver" || !s.LastHandshake.Time.Equal(noon.Add(time.Second)) {
		t.Errorf("status is %+v", s)
	}
	c := s.Conditions[0]
	if len(s.Conditions) != 1 || c.Status != metav1.ConditionTrue || c.ObservedGeneration != 3 || !c.LastTransitionTime.Time.Equal(noon) {
		t.Errorf("conditions are %+v", s.Conditions)
	}
	if in.Peers[0].Status.ReceivedBytes != 100 || len(in.Peers[0].Status.Conditions) != 2 {
		t.Error("the input was changed")
	}
}

func TestPlanIsStable(t *testing.T) {
	in := input(peer("b", 0, "245.1.2.4/32 fd7a:1::4/128"), peer("a", 0, "245.1.2.6/32"), peer("c", 0, "245.1.2.6/32"))
	first := NewPlan(in)
	for i, a := range first.Answers { // as if written and read back, later
		for j := range in.Peers {
			if in.Peers[j].UID == a.UID {
				in.Peers[j].Status = first.Answers[i].Status
			}
		}
	}
	slices.Reverse(in.Peers)
	in.Now = in.Now.Add(time.Minute)
	second := NewPlan(in)
	for i, a := range second.Answers {
		if c := compare(first.Answers[i].Status, a.Status); c != same {
			t.Errorf("%s changes from\n%+v to\n%+v", a.Name, first.Answers[i].Status, a.Status)
		}
	}
}

func TestSilentPeers(t *testing.T) {
	week := SilentAfter
	heard := func(at time.Time) func(*v1alpha1.Peer) {
		return func(p *v1alpha1.Peer) { p.Status.LastHandshake = &metav1.Time{Time: at} }
	}
	for _, row := range []struct {
		name    string
		peer    v1alpha1.Peer
		started time.Time
		now     time.Time
		heard   time.Time
		want    string
	}{
		{"never heard, young", peer("a", 0, "245.1.2.4/32"), noon, noon.Add(week - 1), time.Time{}, "a:Accepted"},
		{"never heard, old", peer("a", 0, "245.1.2.4/32"), noon, noon.Add(week), time.Time{}, "a:delete"},
		{"refused, old", peer("a", 0, "10.1.2.4/32"), noon, noon.Add(week), time.Time{}, "a:delete"},
		{"heard by another pod", peer("a", 0, "245.1.2.4/32", heard(noon.Add(time.Hour))), noon, noon.Add(week), time.Time{}, "a:Accepted"},
		{"heard by this pod", peer("a", 0, "245.1.2.4/32"), noon, noon.Add(week), noon.Add(time.Hour), "a:Accepted"},
		{"heard long ago", peer("a", 0, "245.1.2.4/32", heard(noon.Add(time.Hour))), noon, noon.Add(week + time.Hour), noon, "a:delete"},
		{"old, but the gateway has just begun", peer("a", 0, "245.1.2.4/32"), noon.Add(week), noon.Add(week + time.Minute), time.Time{}, "a:Accepted"},
		{"from the future", peer("a", 60, "245.1.2.4/32"), noon.Add(-2 * time.Hour), noon, time.Time{}, "a:Accepted"},
	} {
		t.Run(row.name, func(t *testing.T) {
			in := input(row.peer)
			in.Started, in.Now = row.started, row.now
			in.Traffic = map[types.UID]Traffic{row.peer.UID: {LastHandshake: row.heard}}
			if got := summary(NewPlan(in)); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func TestCompare(t *testing.T) {
	base := NewPlan(input(peer("a", 0, "245.1.2.4/32"))).Answers[0].Status
	for _, row := range []struct {
		name string
		edit func(*v1alpha1.PeerStatus)
		want change
	}{
		{"nothing", func(*v1alpha1.PeerStatus) {}, same},
		{"bytes", func(s *v1alpha1.PeerStatus) { s.SentBytes++ }, counts},
		{"handshake", func(s *v1alpha1.PeerStatus) { s.LastHandshake = &metav1.Time{Time: noon} }, counts},
		{"carrier", func(s *v1alpha1.PeerStatus) { s.Carrier = "apiserver" }, matters},
		{"pod", func(s *v1alpha1.PeerStatus) { s.Gateway.PodUID = "pod-2" }, matters},
		{"generation", func(s *v1alpha1.PeerStatus) { s.ObservedGeneration++; s.SentBytes++ }, matters},
		{"condition", func(s *v1alpha1.PeerStatus) { s.Conditions[0].Message = "other" }, matters},
	} {
		t.Run(row.name, func(t *testing.T) {
			have, want := base, base
			g := *base.Gateway
			have.Gateway, have.Conditions = &g, slices.Clone(base.Conditions)
			row.edit(&have)
			if got := compare(have, want); got != row.want {
				t.Errorf("got %d, want %d", got, row.want)
			}
		})
	}
}

// FuzzParse checks that whatever a spec says, what comes out can be configured without harm.
func FuzzParse(f *testing.F) {
	f.Add(keyOf("a").String(), "245.1.2.4/32", "fd7a:1::4/128", "10.130.0.0/16 246.130.0.0/16 fd00::/56 fd7a::/56")
	f.Add(keyOf("a").String(), "245.1.2.4/32", "fd7a:1::4/128", "10.130.0.0/16 245.1.0.0/16 224.0.0.0/4 240.0.0.0/4 10.0.0.1/8 ::/0")
	f.Add("", "10.0.0.0/8", "::ffff:245.0.0.4/128", "")
	f.Add(strings.Repeat("A", 43)+"=", "255.255.255.254/32", "fdff::%x/128", "::ffff:10.0.0.0/104 fd00::/104")
	f.Fuzz(func(t *testing.T, key, first, second, pairs string) {
		req, no := parse(v1alpha1.PeerSpec{PublicKey: key, Addresses: []string{first, second}, Twins: twinsOf(pairs)}, ownKey)
		if no != nil {
			if no.reason == "" || no.message == "" || len(no.message) > 400 {
				t.Errorf("refusal %+v", *no)
			}
			return
		}
		if req.key == ownKey || req.key == (wgtypes.Key{}) || len(req.addrs) != 2 {
			t.Errorf("accepted %+v", req)
		}
		for i, a := range req.addrs {
			space := []netip.Prefix{netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("fc00::/7")}[i]
			if link := req.pairs()[i]; !space.Contains(a) || a.Zone() != "" || link.Masked() != link {
				t.Errorf("accepted %s", a)
			}
		}
		if len(req.twins) > maxTwins || len(req.twins) != len(strings.Fields(pairs))/2 {
			t.Errorf("%d twins of %q", len(req.twins), pairs)
		}
		for i, w := range req.twins {
			if !overlay.Holds(w.Virtual) || slices.ContainsFunc(req.pairs(), w.Virtual.Overlaps) || i > 0 && w.Virtual.Overlaps(req.twins[i-1].Virtual) ||
				w.Real.Bits() != w.Virtual.Bits() || w.Real.Addr().Is4() != w.Virtual.Addr().Is4() || w.Real.Addr().IsMulticast() {
				t.Errorf("accepted %v", w)
			}
		}
	})
}
