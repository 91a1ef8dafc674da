//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/packet"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// Where two users of one gateway, or one who means harm, may not get.
const (
	metadata = "169.254.169.254" // the lab's node gets it for a while, as a cloud's metadata service
	nodeIP   = "10.50.0.11"      // runs the kubelet; in no subnet of the cluster
	reply    = 5 * time.Second   // within which the gateway answers; dials of the unreachable take longer
)

// twin is REAL to VIRTUAL as in a Peer's spec.
func twin(virtual, real string) v1alpha1.Twin { return v1alpha1.Twin{Real: real, Virtual: virtual} }

// attackers are two users with the documented Role, and what sees the packets that leave the gateway.
type attackers struct {
	*lab
	configs map[string]string
	sniffer *sniffer
}

func newAttackers(t *testing.T) *attackers {
	l := shared
	a := &attackers{lab: l, configs: map[string]string{}}
	for _, user := range []string{"alice", "mallory"} {
		a.configs[user] = l.kubeconfigOf(t, user)
		l.grant(t, user, "culvert-user")
	}
	a.sniffer = l.sniffGateway(t)
	return a
}

// serveOnNode runs the lab's server on the node, also at the address of a cloud's metadata service, and sees that
// a pod gets there.
func (a *attackers) serveOnNode(t *testing.T) {
	t.Helper()
	must(t, a.Host(10*time.Second, "node1", "ip", "address", "add", metadata+"/32", "dev", "lo"), "give the node the metadata address")
	t.Cleanup(func() {
		must(t, a.Host(10*time.Second, "node1", "ip", "address", "delete", metadata+"/32", "dev", "lo"), "take the metadata address back")
	})
	t.Cleanup(a.backgroundOn(t, "node1", nil, "lab", "labnet", "server"))
	for _, target := range []string{nodeIP, metadata} {
		eventually(t, 10*time.Second, "the node's server, from a pod", func() error {
			return a.Kubectl("exec", a.echoPodName(t), "--", "/labnet", "pingpong", "--count", "1", target+":7000").OK()
		})
	}
}

// podIP returns the address of a pod in a namespace.
func (l *lab) podIP(t *testing.T, namespace, pod string) string {
	t.Helper()
	r := l.Kubectl("-n", namespace, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
	must(t, r, "address of pod "+pod)
	return strings.TrimSpace(r.Out)
}

// TestTwoUsersWithTheSameTwins: what a virtual address stands for is each Peer's own affair.
func TestTwoUsersWithTheSameTwins(t *testing.T) {
	a := newAttackers(t)
	web := a.podIP(t, "default", "web-0")
	if web == a.EchoPod {
		t.Fatalf("one pod, %s, for both users", web)
	}
	alice := a.connectRaw(t, "alice", "245.77.0.0", twin("246.77.0.7/32", a.EchoPod+"/32"), twin("246.77.1.0/24", "10.130.0.0/24"))
	mallory := a.connectRaw(t, "mallory", "245.77.0.2", twin("246.77.0.7/32", web+"/32"), twin("246.77.0.0/30", web[:strings.LastIndex(web, ".")]+".0/30"))
	for range 20 { // both at once, over and over: nothing of one is taken for the other's
		alice.reaches(t, "246.77.0.7", a.EchoPod)
		mallory.reaches(t, "246.77.0.7", web)
	}
	for _, p := range []*rawPeer{alice, mallory} {
		p.handshakes(t, "246.77.0.7", 7000)
		p.pings(t, "246.77.0.7")
	}
	// A twin of the other's alone is nothing.
	if got := mallory.send(t, mallory.udp("246.77.1.1", 53, "whose?")); !got.unreachable("246.77.1.1") {
		t.Errorf("a twin that only another Peer has: %s", got)
	}
	alice.nothing(t, "answers that are not its own")
	mallory.nothing(t, "answers that are not its own")
}

// TestTwinsOpenNothing: a twin leads nowhere that its real address does not.
func TestTwinsOpenNothing(t *testing.T) {
	a := newAttackers(t)
	a.serveOnNode(t)
	gateway := a.podIP(t, "culvert", "culvert-gateway-0")
	alice := a.connectRaw(t, "alice", "245.77.0.4", twin("246.77.0.7/32", a.EchoPod+"/32"))
	mallory := a.connectRaw(t, "mallory", "245.77.0.6",
		twin("246.77.1.0/24", "127.0.0.0/24"),
		twin("246.77.2.0/24", "169.254.169.0/24"),
		twin("246.77.3.11/32", nodeIP+"/32"),
		twin("246.77.4.0/31", "245.77.0.4/31"), // Alice, and the gateway as she sees it
		twin("246.77.5.1/32", gateway+"/32"),
		twin("240.0.0.0/8", "0.0.0.0/8"),
		twin("246.77.7.7/32", a.EchoPod+"/32"),
		twin("246.77.8.0/24", "255.255.255.0/24"),
	)
	mallory.reaches(t, "246.77.7.7", a.EchoPod)
	for _, row := range []struct {
		name, dst, real string
		port            uint16 // where somebody listens
		gone            bool   // as itself: "host unreachable", like every address in the range of twins
	}{
		{"the gateway's own loopback, where the carrier listens", "246.77.1.1", "127.0.0.1", 7831, false},
		{"cloud metadata", "246.77.2.254", metadata, 7000, false},
		{"the node", "246.77.3.11", nodeIP, 7000, false},
		{"the kubelet", "246.77.3.11", nodeIP, 10250, false},
		{"another user", "246.77.4.0", "245.77.0.4", 7000, true},
		{"the gateway of another user", "246.77.4.1", "245.77.0.5", 53, true},
		{"the gateway's pod, where health checks are answered", "246.77.5.1", gateway, 7832, false},
		{"this host", "240.0.0.0", "0.0.0.0", 7832, false},
		{"broadcast", "246.77.8.255", "255.255.255.255", 7000, false},
		{"a twin that does not exist", "246.77.6.6", "246.77.6.6", 7000, true},
	} {
		for _, dst := range slices.Compact([]string{row.dst, row.real}) { // by its twin, and as it is
			a.closed(t, mallory, row.name, dst, row.real, row.port, row.gone && dst == row.real)
		}
	}
	alice.nothing(t, "packets of another user")
	alice.reaches(t, "246.77.0.7", a.EchoPod)
	mallory.reaches(t, "246.77.7.7", a.EchoPod)
	mallory.handshakes(t, "246.77.7.7", 7000)
	mallory.pings(t, "246.77.7.7")
}

// closed sees UDP, TCP and a ping to dst refused at once, and that nothing has left the gateway to real.
func (a *attackers) closed(t *testing.T, p *rawPeer, name, dst, real string, port uint16, gone bool) {
	t.Helper()
	begin := a.sniffer.count()
	if addr(dst).IsUnspecified() || dst == "255.255.255.255" {
		// ICMP errors about packets to these are forbidden (RFC 1122, section 3.2.2), so that silence is right.
		p.push(p.udp(dst, port, mark(dst)))
	} else if got := p.send(t, p.udp(dst, port, mark(dst))); !got.refused(dst) || got.unreachable(dst) != gone {
		t.Errorf("%s: UDP to %s: %s", name, dst, got)
	} else if got := p.send(t, p.ping(dst, mark(dst))); !got.refused(dst) || got.unreachable(dst) != gone {
		t.Errorf("%s: ping %s: %s", name, dst, got)
	} else if got := p.send(t, p.syn(dst, port)); !(gone && got.unreachable(dst) || !gone && got.reset(dst, port)) {
		t.Errorf("%s: TCP to %s: %s", name, dst, got)
	}
	a.passed(t, p)
	if seen := a.sniffer.seen(begin, mark(dst), "SYN "+real+":"+fmt.Sprint(port)); len(seen) > 0 {
		t.Errorf("%s: left the gateway: %v", name, seen)
	}
}

// passed sends a datagram that may pass and waits until it was seen to: all before it has passed then, or never will.
func (a *attackers) passed(t *testing.T, p *rawPeer) {
	t.Helper()
	p.marks++
	marker := mark(fmt.Sprint(p.addr, " passes ", p.marks))
	answer := p.send(t, p.udp(a.EchoPod, 7000, marker))
	if string(answer.payload()) != marker {
		t.Fatalf("an honest datagram: %s", answer)
	}
	a.sniffer.wait(t, marker)
}

// TestForgedSourcesGetNowhere: whatever address a packet says it is from, it arrives nowhere and nobody
// gets an answer to what somebody else asked.
func TestForgedSourcesGetNowhere(t *testing.T) {
	a := newAttackers(t)
	gateway := a.podIP(t, "culvert", "culvert-gateway-0")
	alice := a.connectRaw(t, "alice", "245.77.0.8", twin("246.77.0.7/32", a.EchoPod+"/32"))
	mallory := a.connectRaw(t, "mallory", "245.77.0.10", twin("246.77.0.7/32", a.EchoPod+"/32"), twin("246.77.1.0/31", "245.77.0.8/31"))
	mallory.reaches(t, "246.77.0.7", a.EchoPod)
	const forged = "from "
	for _, src := range []string{
		"245.77.0.8",  // Alice
		"245.77.0.9",  // the gateway as she sees it
		"245.77.0.11", // as the forger does
		a.EchoPod, a.EchoIP, gateway, nodeIP, "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1",
		"246.77.0.7", // a twin, one's own
		"246.77.1.0", // a twin of Alice
	} {
		for _, dst := range []string{a.EchoPod, "246.77.0.7", "245.77.0.8", "245.77.0.11"} {
			from, to := netip.AddrPortFrom(addr(src), 4444), netip.AddrPortFrom(addr(dst), 7000)
			marker := mark(forged + src + " to " + dst)
			mallory.push(packet.AppendUDP(nil, from, to, []byte(marker)))
			mallory.push(tcpPacket(from, netip.AddrPortFrom(addr(dst), 7001), packet.FlagSYN, 1000))
			mallory.push(echoPacket(from, to.Addr(), marker))
			// In fragments: the source of each counts.
			packet.Fragment(packet.AppendUDP(nil, from, to, []byte(marker+strings.Repeat("x", 2000))), 1280, uint32(len(src)), make([]byte, 0, 1280),
				func(part []byte) { mallory.push(slices.Clone(part)) })
		}
	}
	a.passed(t, mallory)
	if seen := a.sniffer.seen(0, forged, ":7001"); len(seen) > 0 {
		t.Errorf("forged packets left the gateway: %v", seen)
	}
	alice.nothing(t, "answers to what it did not ask")
	mallory.nothing(t, "answers to forged packets")
	alice.reaches(t, "246.77.0.7", a.EchoPod)
}

// TestKeysAndAddressesOfOthers: who is first keeps a key and an address, and what makes a Peer does not change.
func TestKeysAndAddressesOfOthers(t *testing.T) {
	a := newAttackers(t)
	older := a.connectRaw(t, "mallory", "245.77.0.14") // before Alice: of two the older would win
	alice := a.connectRaw(t, "alice", "245.77.0.12", twin("246.77.0.7/32", a.EchoPod+"/32"))
	alice.reaches(t, "246.77.0.7", a.EchoPod)
	key := alice.key.PublicKey().String()
	for _, row := range []struct {
		name, key, addr, reason string
	}{
		{"aaa-her-key", key, "245.77.0.16", v1alpha1.ReasonDuplicateKey},
		{"aaa-her-address", newRawKey(t).PublicKey().String(), "245.77.0.12", v1alpha1.ReasonAddressConflict},
		{"aaa-both", key, "245.77.0.12", v1alpha1.ReasonDuplicateKey},
	} {
		must(t, a.create(t, "mallory", row.name, row.key, row.addr), "create Peer "+row.name)
		a.condition(t, row.name, row.reason, alice.name)
		alice.reaches(t, "246.77.0.7", a.EchoPod)
	}
	as := []string{"--kubeconfig", a.configs["mallory"], "-n", "culvert", "patch", "peer"}
	for _, row := range []struct{ peer, patch, want string }{
		{alice.name, `{"spec":{"twins":[{"real":"10.132.0.0/24","virtual":"246.77.0.0/24"}]}}`, "belongs to"},
		{alice.name, `{"spec":{"twins":[]}}`, "belongs to"},
		{older.name, `{"spec":{"publicKey":"` + key + `"}}`, "never change"},
		{older.name, `{"spec":{"addresses":["245.77.0.12/32"]}}`, "never change"},
	} {
		r := a.Kubectl(append(slices.Clone(as), row.peer, "--type", "merge", "-p", row.patch)...)
		if r.Code == 0 || !strings.Contains(r.Err, row.want) {
			t.Errorf("mallory patches %s with %s: want %q: %s", row.peer, row.patch, row.want, r)
		}
	}
	alice.reaches(t, "246.77.0.7", a.EchoPod)
	// Her own twins are hers to change.
	web := a.podIP(t, "default", "web-0")
	must(t, a.Kubectl("--kubeconfig", a.configs["alice"], "-n", "culvert", "patch", "peer", alice.name, "--type", "merge",
		"-p", `{"spec":{"twins":[{"real":"`+web+`/32","virtual":"246.77.0.7/32"}]}}`), "alice changes her twins")
	eventually(t, 5*time.Second, "another meaning of the twin", func() error {
		if got := alice.send(t, alice.udp("246.77.0.7", 7002, "where?")); strings.TrimSpace(string(got.payload())) != web {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

// TestNameTakenByAnother: names of Peers are known to all, so that one can be kept from its user.
func TestNameTakenByAnother(t *testing.T) {
	a := newAttackers(t)
	as := append([]string{"--kubeconfig", a.configs["alice"]}, allowFlags...)
	var name string
	t.Run("first", func(t *testing.T) {
		a.connect(t, as...)
		name = a.status(t).Peer.Name
	})
	must(t, a.create(t, "mallory", name, newRawKey(t).PublicKey().String(), "245.77.0.26"), "take the name of Alice's Peer")
	a.connect(t, as...)
	must(t, a.curl("http://echo.default/"), "GET as alice")
	if got := a.status(t).Peer.Name; !strings.HasPrefix(got, name+"-") {
		t.Errorf("Peer %s, want another than %s", got, name)
	}
}

// TestTwinsThatAreRefused: by the API server where the form is wrong, by the gateway where the meaning is.
func TestTwinsThatAreRefused(t *testing.T) {
	a := newAttackers(t)
	alice := a.connectRaw(t, "alice", "245.77.0.20", twin("246.77.0.7/32", a.EchoPod+"/32"))
	var many []v1alpha1.Twin
	for i := range 65 {
		many = append(many, twin(fmt.Sprintf("246.78.%d.0/24", i), fmt.Sprintf("10.132.%d.0/24", i)))
	}
	one := func(virtual, real string) []v1alpha1.Twin { return []v1alpha1.Twin{twin(virtual, real)} }
	for i, row := range []struct {
		name   string
		twins  []v1alpha1.Twin
		reason string // of the condition; "" where the API server refuses
		want   string
	}{
		{"over the services", one("10.130.0.0/24", "10.132.0.0/24"), v1alpha1.ReasonInvalidSpec, "10.130.0.0/24"},
		{"over the company's network", one("10.20.0.0/24", "10.132.0.0/24"), v1alpha1.ReasonInvalidSpec, "10.20.0.0/24"},
		{"over loopback", one("127.0.0.0/24", "10.132.0.0/24"), v1alpha1.ReasonInvalidSpec, "127.0.0.0/24"},
		{"over everything", one("0.0.0.0/0", "0.0.0.0/0"), v1alpha1.ReasonInvalidSpec, "0.0.0.0/0"},
		{"over one's own address", one("245.77.0.0/24", "10.132.0.0/24"), v1alpha1.ReasonInvalidSpec, "own addresses"},
		{"over the gateway's side", one("245.77.0.23/32", "10.132.0.9/32"), v1alpha1.ReasonInvalidSpec, "own addresses"},
		{"over broadcast", one("255.255.255.0/24", "10.132.0.0/24"), v1alpha1.ReasonInvalidSpec, "broadcast"},
		{"of multicast", one("246.77.0.0/24", "224.0.0.0/24"), v1alpha1.ReasonInvalidSpec, "multicast"},
		{"one in another", append(one("246.77.0.0/24", "10.132.0.0/24"), twin("246.77.0.0/25", "10.130.0.0/25")), v1alpha1.ReasonInvalidSpec, "overlap"},
		{"two of one", append(one("246.77.0.0/24", "10.132.0.0/24"), twin("246.78.0.0/24", "10.132.0.0/24")), v1alpha1.ReasonInvalidSpec, "two twins"},
		{"65 of them", many, "", "at most 64"},
		{"with host bits", one("246.77.0.1/24", "10.132.0.0/24"), "", "without host bits"},
		{"of another length", one("246.77.0.0/24", "10.132.0.0/25"), "", "same family and length"},
		{"of another family", one("246.77.0.0/24", "fd00::/24"), "", "same family and length"},
		{"IPv4 in IPv6", one("::ffff:246.77.0.0/120", "::ffff:10.132.0.0/120"), "", "is not an address prefix"},
		{"with a zone", one("fd77::%eth0/64", "fd78::/64"), "", "is not an address prefix"},
		{"without a length", one("246.77.0.0", "10.132.0.0"), "", "is not an address prefix"},
		{"of nothing", one("", ""), "", "is not an address prefix"},
		{"with another line", one("246.77.0.0/24\n", "10.132.0.0/24"), "", "isCIDR"},
	} {
		name := fmt.Sprintf("refused-%d", i)
		r := a.create(t, "mallory", name, newRawKey(t).PublicKey().String(), "245.77.0.22", row.twins...)
		switch {
		case row.reason == "" && (r.Code == 0 || !strings.Contains(r.Err, row.want)):
			t.Errorf("twins %s: want a refusal with %q: %s", row.name, row.want, r)
		case row.reason == "":
		case r.Code != 0:
			t.Errorf("twins %s: %s", row.name, r)
		default:
			a.condition(t, name, row.reason, row.want)
		}
		a.Kubectl("-n", "culvert", "delete", "peer", name, "--ignore-not-found")
	}
	// As many as are accepted, and one that covers Alice's address: it leads Mallory to what it stands for, not to her.
	mallory := a.connectRaw(t, "mallory", "245.77.0.24", append(many[:63:63], twin("245.77.0.20/32", a.EchoPod+"/32"))...)
	mallory.handshakes(t, alice.addr.String(), 7000)
	alice.reaches(t, "246.77.0.7", a.EchoPod)
	alice.nothing(t, "packets to its address")
}

// condition waits until the gateway refuses a Peer for a reason, with a message that names what is wrong.
func (a *attackers) condition(t *testing.T, name, reason, want string) {
	t.Helper()
	eventually(t, 10*time.Second, "a refusal of Peer "+name, func() error {
		r := a.Kubectl("-n", "culvert", "get", "peer", name, "-o", "json")
		var p v1alpha1.Peer
		if err := json.Unmarshal([]byte(r.Out), &p); err != nil {
			return fmt.Errorf("%v: %s", err, r)
		}
		for _, c := range p.Status.Conditions {
			if c.Type == v1alpha1.PeerReady && c.Status == "False" && c.Reason == reason && strings.Contains(c.Message, want) && p.Status.Gateway == nil {
				return nil
			}
		}
		return fmt.Errorf("want %s with %q: %+v", reason, want, p.Status)
	})
}

func newRawKey(t *testing.T) wgtypes.Key {
	t.Helper()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
