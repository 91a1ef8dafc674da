package tunnel

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/gateway/dataplane"
	"github.com/culvert-dev/culvert/gateway/twins"
)

// Peer is a workstation that is served.
type Peer struct {
	// Name is what people call it, and ID tells apart those that had the same name one after the other. No two
	// have the same of both.
	Name, ID string
	Key      wgtypes.Key
	// Node are the workstation's overlay addresses, one or two, the only ones it may send from, and Gateway[i]
	// is this pod's own as seen from Node[i].
	Node, Gateway []netip.Addr
	// Twins are translated for this Peer alone, as it asked. They are destinations: what it may send from
	// stays Node.
	Twins twins.Map
}

// addrs is p in the words of the data plane: with another key it is another.
func (p Peer) addrs() dataplane.PeerAddrs {
	return dataplane.PeerAddrs{ID: p.ID + " " + p.Key.String()[:8], Node: p.Node, Gateway: p.Gateway, Twins: p.Twins}
}

// WireGuard is the device that is configured; *wgdev.Device is one.
type WireGuard interface {
	// Configure applies a difference, with the meaning of wgctrl.
	Configure(wgtypes.Config) error
	// Status returns what is configured and counted now.
	Status() (wgtypes.Device, error)
}

// Plane is told whose packets to take off the WireGuard device.
type Plane interface {
	// SetPeers replaces the Peers served. Flows of those left out end at once, and of those whose twins have
	// changed the flows that would now lead elsewhere.
	SetPeers([]Peer)
}

// difference returns the configuration that makes the peers of a device those wanted, or false if
// they are. Removals come first: an address then never has two owners.
func difference(have []wgtypes.Peer, want []Peer) (wgtypes.Config, bool) {
	wanted := make(map[wgtypes.Key]Peer, len(want))
	for _, w := range want {
		wanted[w.Key] = w
	}
	var remove, set []wgtypes.PeerConfig
	present := make(map[wgtypes.Key][]net.IPNet, len(have))
	for _, h := range have {
		present[h.PublicKey] = h.AllowedIPs
		if _, ok := wanted[h.PublicKey]; !ok {
			remove = append(remove, wgtypes.PeerConfig{PublicKey: h.PublicKey, Remove: true})
		}
	}
	for _, w := range want {
		if old, ok := present[w.Key]; !ok || !sameAddrs(old, w.Node) {
			set = append(set, wgtypes.PeerConfig{PublicKey: w.Key, ReplaceAllowedIPs: true, AllowedIPs: ipNets(w.Node)})
		}
	}
	return wgtypes.Config{Peers: append(remove, set...)}, len(remove)+len(set) > 0
}

// ipNets returns each address as a prefix of itself alone, in the form WireGuard takes.
func ipNets(addrs []netip.Addr) []net.IPNet {
	out := make([]net.IPNet, len(addrs))
	for i, a := range addrs {
		out[i] = net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
	}
	return out
}

// sameAddrs reports whether allowed is exactly addrs, in any order.
func sameAddrs(allowed []net.IPNet, addrs []netip.Addr) bool {
	if len(allowed) != len(addrs) {
		return false
	}
	for _, n := range allowed {
		a, ok := netip.AddrFromSlice(n.IP)
		ones, bits := n.Mask.Size()
		if a = a.Unmap(); !ok || ones != bits || !slices.Contains(addrs, a) {
			return false
		}
	}
	return true
}

// Apply makes the device and the data plane serve next, where the plane admits prev now. It returns
// whom the plane admits in the end, which on an error is less than next.
//
// Those who leave are taken off the plane first, so that their flows end at once; those who come are
// admitted last. An address that changes hands is thus admitted for its new owner only when the old
// one's key can no longer speak for it.
func Apply(wg WireGuard, plane Plane, prev, next []Peer) (admitted []Peer, err error) {
	stay, leave := partition(prev, next)
	if len(leave) > 0 {
		plane.SetPeers(stay)
	}
	device, err := wg.Status()
	if err != nil {
		return stay, fmt.Errorf("read the WireGuard peers: %w", err)
	}
	if cfg, differs := difference(device.Peers, next); differs {
		if err := wg.Configure(cfg); err != nil {
			return stay, fmt.Errorf("configure %d WireGuard peers: %w", len(cfg.Peers), err)
		}
	}
	if len(stay) < len(next) || len(retwinned(prev, next)) > 0 {
		plane.SetPeers(next)
	}
	return next, nil
}

// identity is what stays the same as long as a Peer is served.
type identity struct {
	name, id      string
	key           wgtypes.Key
	node, gateway [2]netip.Addr
}

func (p Peer) identity() identity {
	i := identity{name: p.Name, id: p.ID, key: p.Key}
	copy(i.node[:], p.Node)
	copy(i.gateway[:], p.Gateway)
	return i
}

// partition splits list into the entries that stand in other as well, whatever their twins, and the rest.
func partition(list, other []Peer) (in, out []Peer) {
	known := make(map[identity]bool, len(other))
	for _, p := range other {
		known[p.identity()] = true
	}
	for _, p := range list {
		if known[p.identity()] {
			in = append(in, p)
		} else {
			out = append(out, p)
		}
	}
	return in, out
}

// retwinned returns those of next that have other twins in prev. Twins are the one thing that changes while
// a Peer is served: they are the data plane's alone, and most flows live on.
func retwinned(prev, next []Peer) (out []Peer) {
	before := make(map[identity]twins.Map, len(prev))
	for _, p := range prev {
		before[p.identity()] = p.Twins
	}
	for _, p := range next {
		if old, ok := before[p.identity()]; ok && !slices.Equal(old, p.Twins) {
			out = append(out, p)
		}
	}
	return out
}

// LogChange says who came, who left and whose twins are others.
func LogChange(log *slog.Logger, before, after []Peer) {
	_, left := partition(before, after)
	_, came := partition(after, before)
	for _, p := range left {
		log.Info("Peer no longer served", "peer", p.Name, "uid", p.ID)
	}
	for _, p := range came {
		log.Info("Peer served", "peer", p.Name, "uid", p.ID, "addresses", p.Node, "twins", len(p.Twins))
	}
	for _, p := range retwinned(before, after) {
		log.Info("Peer has other twins", "peer", p.Name, "uid", p.ID, "twins", len(p.Twins))
	}
}
