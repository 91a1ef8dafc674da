package agent

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/gateway/dataplane"
	"github.com/culvert-dev/culvert/gateway/egress"
	"github.com/culvert-dev/culvert/gateway/overlay"
	"github.com/culvert-dev/culvert/gateway/tunnel/tunneltest"
	"github.com/culvert-dev/culvert/internal/enrol"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func addrs(text string) (out []netip.Addr) {
	for _, word := range strings.Fields(text) {
		out = append(out, netip.MustParseAddr(word))
	}
	return out
}

// request is one of the connection and key of that name. Pairs are twins, as "REAL VIRTUAL".
func request(connection, key, node, agent, pairs string) enrol.Request {
	r := enrol.Request{Connection: connection, PublicKey: tunneltest.Key(key), Node: addrs(node), Agent: addrs(agent)}
	for words := strings.Fields(pairs); len(words) > 1; words = words[2:] {
		r.Twins = append(r.Twins, enrol.Twin{Real: netip.MustParsePrefix(words[0]), Virtual: netip.MustParsePrefix(words[1])})
	}
	return r
}

func bye(connection, key string) enrol.Request {
	return enrol.Request{Connection: connection, PublicKey: tunneltest.Key(key), Bye: true}
}

// names returns the connections of ns, with the names of their keys.
func names(ns nodes) string {
	var out []string
	for _, n := range ns {
		out = append(out, n.peer.Name+"/"+strings.TrimRight(string(n.peer.Key[:31]), "\x00"))
	}
	return strings.Join(out, " ")
}

func TestNodes(t *testing.T) {
	loop := "127.0.0.0/8 250.0.0.0/8"
	var ns nodes
	for _, step := range []struct {
		name string
		r    enrol.Request
		want string // connections and keys, or how the refusal begins
	}{
		{"the first", request("ann", "ka", "245.1.2.4 fd7a:1::4", "245.1.2.7 fd7a:1::7", loop), "ann/ka"},
		{"again", request("ann", "ka", "245.1.2.4 fd7a:1::4", "245.1.2.7 fd7a:1::7", loop), "ann/ka"},
		{"other addresses", request("ann", "ka", "245.1.2.8", "245.1.2.9", loop), "ann/ka"},
		{"a second with its own", request("bob", "kb", "245.1.2.4", "245.1.2.5", loop), "ann/ka bob/kb"},
		{"another's address", request("eve", "ke", "245.1.2.8", "245.1.2.11", loop), "Conflict: address 245.1.2.8 belongs to another node"},
		{"another's address for the agent", request("eve", "ke", "245.1.2.10", "245.1.2.9", loop), "Conflict: address 245.1.2.9"},
		{"the agent's address of another for itself", request("eve", "ke", "245.1.2.5", "245.1.2.11", loop), "Conflict: address 245.1.2.5"},
		{"another's key", request("bob", "ka", "245.1.2.4", "245.1.2.5", loop), "Conflict: the public key"},
		{"moving onto another's address", request("bob", "kb", "245.1.2.8", "245.1.2.5", loop), "Conflict: address 245.1.2.8"},
		{"after a restart, with a new key", request("ann", "ka2", "245.1.2.8", "245.1.2.9", loop), "ann/ka2 bob/kb"},
		{"the same key under another name", request("ann-2", "ka2", "245.1.2.8", "245.1.2.9", loop), "ann-2/ka2 bob/kb"},
		{"one too many", request("eve", "ke", "245.1.2.16", "245.1.2.17", loop), "TooManyNodes: this agent serves 2 nodes already"},
		{"the bye of a stranger", bye("eve", "ke"), "ann-2/ka2 bob/kb"},
		{"the bye of nobody's connection with another's key", bye("bob", "ka2"), "Conflict: the public key"},
		{"bye", bye("bob", "kb"), "ann-2/ka2"},
		{"bye again", bye("bob", "kb"), "ann-2/ka2"},

		{"the agent's key", request("eve", "agent", "245.1.2.16", "245.1.2.17", loop), "Invalid: publicKey"},
		{"an address of the cluster", request("eve", "ke", "10.130.0.10", "245.1.2.17", loop), "Invalid: address 10.130.0.10/32 is not in 240.0.0.0/4"},
		{"an address of the cluster for the agent", request("eve", "ke", "245.1.2.16", "10.130.0.10", loop), "Invalid: address 10.130.0.10/32"},
		{"the broadcast address", request("eve", "ke", "245.1.2.16", "255.255.255.255", loop), "Invalid: address 255.255.255.255/32 holds"},
		{"a global address", request("eve", "ke", "2001:db8::1", "fd7a::1", loop), "Invalid: address 2001:db8::1/128"},
		{"metadata", request("eve", "ke", "245.1.2.16", "245.1.2.17", "169.254.169.254/32 250.0.0.1/32"), "Invalid: twins: 169.254.169.254/32 is never dialled: cloud metadata"},
		{"metadata of IPv6", request("eve", "ke", "245.1.2.16", "245.1.2.17", "fd00:ec2::254/128 fd7a:9::1/128"), "Invalid: twins: fd00:ec2::254/128 is never"},
		{"link-local", request("eve", "ke", "245.1.2.16", "245.1.2.17", "fe80::/64 fd7a:9::/64"), "Invalid: twins: fe80::/64 is never"},
		{"multicast", request("eve", "ke", "245.1.2.16", "245.1.2.17", "224.0.0.0/8 250.0.0.0/8"), "Invalid: twins: 224.0.0.0/8 is never"},
		{"all that is multicast and more", request("eve", "ke", "245.1.2.16", "245.1.2.17", "224.0.0.0/3 224.0.0.0/3"), "Invalid: twins: 224.0.0.0/3 is not in"},
		{"a virtual prefix of the internet", request("eve", "ke", "245.1.2.16", "245.1.2.17", "127.0.0.0/8 8.0.0.0/8"), "Invalid: twins: 8.0.0.0/8 is not in"},
		{"a twin over its own address", request("eve", "ke", "245.1.2.16", "245.1.2.17", "127.0.0.0/8 245.0.0.0/8"), "Invalid: twins: 245.0.0.0/8 holds"},
		{"twins that overlap", request("eve", "ke", "245.1.2.16", "245.1.2.17", "127.0.0.0/8 250.0.0.0/8 10.0.0.0/9 250.0.0.0/9"), "Invalid: twins: 250.0.0.0/8 and 250.0.0.0/9"},
		{"no twins", request("eve", "ke", "245.1.2.16", "245.1.2.17", ""), "ann-2/ka2 eve/ke"},
	} {
		before := names(ns)
		next, err := ns.with(step.r, tunneltest.Key("agent"), 2, noon)
		got := names(next)
		var no *enrol.Refusal
		if errors.As(err, &no) {
			got = no.Reason + ": " + no.Message
		} else if err != nil {
			t.Fatalf("%s: %v is no refusal", step.name, err)
		}
		if got != step.want && (no == nil || !strings.HasPrefix(got, step.want)) {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
		if names(ns) != before {
			t.Errorf("%s: %s became %s", step.name, before, names(ns))
		}
		if err == nil {
			ns = next
		}
	}
}

// Whatever is asked, in whatever order: nothing is anybody's twice, all addresses are of the overlay's space, and who
// asked for something got it. The model is what each accepted request said last.
func TestNodesKeepApart(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(words string) string { list := strings.Fields(words); return list[r.IntN(len(list))] }
	const most = 3
	var ns nodes
	model := map[string]enrol.Request{} // by connection
	for range 20000 {
		req := request(pick("a b c d e"), pick("ka kb kc kd ke agent"), pick("245.0.0.1 245.0.0.2 245.0.0.3 245.0.0.4 10.0.0.1"),
			pick("245.0.0.1 245.0.0.2 245.0.0.5 245.0.0.6 245.0.0.7"), pick("127.0.0.0/8 10.0.0.0/8 169.254.0.0/16")+" "+pick("250.0.0.0/8 246.0.0.0/16 251.0.0.0/8"))
		if t := req.Twins[0]; t.Real.Bits() != t.Virtual.Bits() || req.Node[0] == req.Agent[0] {
			continue // not in form
		}
		if r.IntN(4) == 0 {
			req = bye(req.Connection, pick("ka kb kc kd ke"))
		}
		next, err := ns.with(req, tunneltest.Key("agent"), most, noon)
		if err != nil {
			if len(next) > 0 {
				t.Fatalf("refused %+v with %v", req, names(next))
			}
			continue
		}
		for name, other := range model {
			if name == req.Connection || other.PublicKey == req.PublicKey {
				delete(model, name)
			}
		}
		if !req.Bye {
			model[req.Connection] = req
		}
		ns = next
		checkNodes(t, ns, model, most)
	}
}

// checkNodes compares ns with what is known to have been accepted.
func checkNodes(t *testing.T, ns nodes, model map[string]enrol.Request, most int) {
	t.Helper()
	if len(ns) != len(model) || len(ns) > most {
		t.Fatalf("%s, want %d", names(ns), len(model))
	}
	used := map[any]bool{}
	for _, n := range ns {
		want, ok := model[n.peer.Name]
		if !ok || n.peer.Key != want.PublicKey || !slices.Equal(n.peer.Node, want.Node) || !slices.Equal(n.peer.Gateway, want.Agent) ||
			n.peer.Twins[0].Real != want.Twins[0].Real || n.reach.Decide(want.Twins[0].Real.Addr().Next()) == egress.Refused {
			t.Fatalf("%+v, want %+v", n.peer, want)
		}
		for _, a := range slices.Concat(n.peer.Node, n.peer.Gateway) {
			if used[a] || !overlay.Holds(netip.PrefixFrom(a, a.BitLen())) {
				t.Fatalf("%v of %s is another's or nobody's", a, names(ns))
			}
			used[a] = true
		}
		if used[n.peer.Key] || n.peer.Key == tunneltest.Key("agent") || n.reach.Decide(netip.MustParseAddr("169.254.169.254")) != egress.Refused {
			t.Fatalf("%s has a key or a way it must not have", n.peer.Name)
		}
		used[n.peer.Key] = true
	}
}

func TestHeard(t *testing.T) {
	ns, err := nodes(nil).with(request("ann", "ka", "245.1.2.4", "245.1.2.5", ""), tunneltest.Key("agent"), 2, noon)
	if err != nil {
		t.Fatal(err)
	}
	open := false
	connected := func(e netip.AddrPort) bool { return open && e == netip.MustParseAddrPort("[2001:db8::7]:1") }
	device := func(received int64, endpoint string) []wgtypes.Peer {
		p := wgtypes.Peer{PublicKey: tunneltest.Key("ka"), ReceiveBytes: received}
		if endpoint != "" {
			p.Endpoint = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(endpoint))
		}
		return []wgtypes.Peer{{PublicKey: tunneltest.Key("kx"), ReceiveBytes: 1 << 40}, p}
	}
	for i, step := range []struct {
		name   string
		device []wgtypes.Peer
		open   bool
		seen   bool
	}{
		{"nothing", nil, false, false},
		{"enrolled, silent", device(0, ""), false, false},
		{"a packet", device(148, ""), false, true},
		{"no other", device(148, "[2001:db8::7]:1"), false, false},
		{"its stream is open", device(148, "[2001:db8::7]:1"), true, true},
		{"another's is", device(148, "[2001:db8::8]:1"), true, false},
		{"configured anew", device(32, ""), false, false},
		{"and a packet", device(64, ""), false, true},
	} {
		now, before := noon.Add(time.Duration(i+1)*time.Minute), ns[0].seen
		open = step.open
		ns = ns.heard(step.device, connected, now)
		if want := map[bool]time.Time{true: now, false: before}[step.seen]; ns[0].seen != want {
			t.Errorf("%s: seen %v, want %v", step.name, ns[0].seen, want)
		}
	}
	if left := ns.since(ns[0].seen.Add(-1)); len(left) != 1 {
		t.Error("it left too early")
	}
	if left := ns.since(ns[0].seen); len(left) != 0 {
		t.Error("it stays")
	}
}

func TestBorder(t *testing.T) {
	b := border{own: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:7841"), netip.MustParseAddrPort("[::1]:7841")}}
	ask := func(peer, dst string) dataplane.Verdict {
		return b.permit(netip.MustParseAddr(peer), dataplane.TCP, netip.MustParseAddrPort(dst))
	}
	if ask("245.1.2.4", "127.0.0.1:80") != dataplane.Deny {
		t.Error("something is permitted before anybody is enrolled")
	}
	var ns nodes
	for _, r := range []enrol.Request{
		request("ann", "ka", "245.1.2.4 fd7a:1::4", "245.1.2.5 fd7a:1::5", "127.0.0.0/8 250.0.0.0/8 ::1/128 fd7a:2::1/128"),
		request("bob", "kb", "245.1.2.8", "245.1.2.9", "10.130.0.0/16 246.130.0.0/16 169.0.0.0/8 247.0.0.0/8"),
	} {
		var err error
		if ns, err = ns.with(r, tunneltest.Key("agent"), 2, noon); err != nil {
			t.Fatal(err)
		}
	}
	b.set(ns)
	for _, row := range []struct {
		peer, dst string
		want      dataplane.Verdict
	}{
		{"245.1.2.4", "127.0.0.1:80", dataplane.AllowReserved},
		{"245.1.2.4", "127.9.8.7:80", dataplane.AllowReserved},
		{"fd7a:1::4", "[::1]:80", dataplane.AllowReserved},
		{"245.1.2.4", "127.0.0.1:0", dataplane.AllowReserved}, // ping
		{"245.1.2.4", "127.0.0.1:7841", dataplane.Deny},
		{"fd7a:1::4", "[::1]:7841", dataplane.Deny},
		{"245.1.2.4", "127.0.0.2:7841", dataplane.AllowReserved}, // not ours
		{"245.1.2.4", "10.130.0.1:80", dataplane.Deny},
		{"245.1.2.8", "10.130.0.1:80", dataplane.AllowReserved},
		{"245.1.2.8", "127.0.0.1:80", dataplane.Deny},
		{"245.1.2.8", "169.254.169.254:80", dataplane.Deny},
		{"245.1.2.9", "10.130.0.1:80", dataplane.Deny}, // the agent's address is nobody's
	} {
		if got := ask(row.peer, row.dst); got != row.want {
			t.Errorf("%s to %s: %d, want %d", row.peer, row.dst, got, row.want)
		}
	}
	b.set(ns.without(0))
	if ask("245.1.2.4", "127.0.0.1:80") != dataplane.Deny || ask("245.1.2.8", "10.130.0.1:80") != dataplane.AllowReserved {
		t.Error("who has left may go on, or who has not may not")
	}
}
