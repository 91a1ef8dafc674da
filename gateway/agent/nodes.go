package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/gateway/egress"
	"github.com/culvert-dev/culvert/gateway/overlay"
	"github.com/culvert-dev/culvert/gateway/tunnel"
	"github.com/culvert-dev/culvert/gateway/twins"
	"github.com/culvert-dev/culvert/internal/enrol"
)

// node is a workstation's node that is enrolled.
type node struct {
	peer     tunnel.Peer // its Name is the connection
	reach    *egress.Set
	seen     time.Time // the latest sign of life
	received int64     // bytes, by WireGuard's counter, as last looked at
}

// nodes are those enrolled, oldest first. A value is never changed: what changes is a new one.
type nodes []node

// with returns ns after the request r at the time now, which was checked for its form, in an agent whose public
// key is own and which serves most nodes at most. Its errors are *enrol.Refusal.
func (ns nodes) with(r enrol.Request, own wgtypes.Key, most int, now time.Time) (nodes, error) {
	self, err := ns.find(r)
	if err != nil {
		return nil, err
	}
	if r.Bye {
		return ns.without(self), nil
	}
	n, err := newNode(r, own)
	if err != nil {
		return nil, err
	}
	for i, other := range ns {
		if i == self {
			continue
		}
		if a, taken := common(other.peer, n.peer); taken {
			return nil, &enrol.Refusal{Reason: enrol.Conflict, Message: fmt.Sprintf("address %s belongs to another node", a)}
		}
	}
	n.seen = now
	out := slices.Clone(ns)
	switch {
	case self >= 0:
		if n.peer.Key == ns[self].peer.Key {
			n.received = ns[self].received
		}
		out[self] = n
	case len(ns) >= most:
		return nil, &enrol.Refusal{Reason: enrol.TooManyNodes, Message: fmt.Sprintf("this agent serves %d nodes already, which is its limit", most)}
	default:
		out = append(out, n)
	}
	return out, nil
}

// find returns which of ns asks by r, or -1 for none: the one with that connection, or with that key.
func (ns nodes) find(r enrol.Request) (int, error) {
	byName := slices.IndexFunc(ns, func(n node) bool { return n.peer.Name == r.Connection })
	byKey := slices.IndexFunc(ns, func(n node) bool { return n.peer.Key == r.PublicKey })
	if byName >= 0 && byKey >= 0 && byName != byKey {
		return 0, &enrol.Refusal{Reason: enrol.Conflict, Message: "the public key belongs to another node"}
	}
	return max(byName, byKey), nil
}

// without returns ns less the one at i; all of them for -1.
func (ns nodes) without(i int) nodes {
	if i < 0 {
		return ns
	}
	return slices.Delete(slices.Clone(ns), i, i+1)
}

// newNode checks what r asks for. What it may not be whoever asks is refused as Invalid.
func newNode(r enrol.Request, own wgtypes.Key) (node, error) {
	if r.PublicKey == own {
		return node{}, invalid("publicKey: the agent's own key")
	}
	var reals, links []netip.Prefix
	for _, a := range slices.Concat(r.Node, r.Agent) {
		link := netip.PrefixFrom(a, a.BitLen())
		if err := overlay.Check(link); err != nil {
			return node{}, invalid("address %v", err)
		}
		links = append(links, link)
	}
	list := make([]twins.Twin, len(r.Twins))
	for i, t := range r.Twins {
		if why := egress.NeverOfAgent(t.Real); why != "" {
			return node{}, invalid("twins: %s is never dialled: %s", t.Real, why)
		}
		list[i] = twins.Twin{Real: t.Real, Virtual: t.Virtual}
		reals = append(reals, t.Real)
	}
	m, err := twins.ForPeer(list, links)
	if err != nil {
		return node{}, invalid("twins: %v", err)
	}
	return node{peer: tunnel.Peer{Name: r.Connection, ID: r.PublicKey.String()[:8], Key: r.PublicKey, Node: r.Node, Gateway: r.Agent, Twins: m},
		reach: egress.CompileAgent(reals)}, nil
}

func invalid(format string, args ...any) *enrol.Refusal {
	return &enrol.Refusal{Reason: enrol.Invalid, Message: fmt.Sprintf(format, args...)}
}

// common returns an address that both a and b have.
func common(a, b tunnel.Peer) (netip.Addr, bool) {
	have := slices.Concat(a.Node, a.Gateway)
	for _, x := range slices.Concat(b.Node, b.Gateway) {
		if slices.Contains(have, x) {
			return x, true
		}
	}
	return netip.Addr{}, false
}

// peers returns ns as the tunnel serves them.
func (ns nodes) peers() []tunnel.Peer {
	out := make([]tunnel.Peer, len(ns))
	for i, n := range ns {
		out[i] = n.peer
	}
	return out
}

// heard returns ns with the signs of life that the device's peers show at the time now; connected says whether
// the carrier's stream behind an endpoint is open.
func (ns nodes) heard(device []wgtypes.Peer, connected func(netip.AddrPort) bool, now time.Time) nodes {
	out := slices.Clone(ns)
	for i := range out {
		n := &out[i]
		at := slices.IndexFunc(device, func(p wgtypes.Peer) bool { return p.PublicKey == n.peer.Key })
		if at < 0 {
			continue
		}
		p := device[at]
		if p.ReceiveBytes > n.received || p.Endpoint != nil && connected(p.Endpoint.AddrPort()) {
			n.seen = now
		}
		n.received = p.ReceiveBytes
	}
	return out
}

// since returns those of ns of whom something was heard after the time t.
func (ns nodes) since(t time.Time) nodes {
	return slices.DeleteFunc(slices.Clone(ns), func(n node) bool { return !n.seen.After(t) })
}
