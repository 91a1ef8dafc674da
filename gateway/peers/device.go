package peers

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/gateway/twins"
)

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
	SetPeers([]Served)
}

// difference returns the configuration that makes the peers of a device those wanted, or false if
// they are. Removals come first: an address then never has two owners.
func difference(have []wgtypes.Peer, want []Served) (wgtypes.Config, bool) {
	wanted := make(map[wgtypes.Key]Served, len(want))
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
		if old, ok := present[w.Key]; !ok || !sameAddrs(old, w.Addrs) {
			set = append(set, wgtypes.PeerConfig{PublicKey: w.Key, ReplaceAllowedIPs: true, AllowedIPs: ipNets(w.Addrs)})
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

// apply makes the device and the data plane serve next, where the plane admits prev now. It returns
// whom the plane admits in the end, which on an error is less than next.
//
// Those who leave are taken off the plane first, so that their flows end at once; those who come are
// admitted last. An address that changes hands is thus admitted for its new owner only when the old
// one's key can no longer speak for it.
func apply(wg WireGuard, plane Plane, prev, next []Served) (admitted []Served, err error) {
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

// retwinned returns those of next that have other twins in prev. Twins are the one thing that changes while
// a Peer is served: they are the data plane's alone, and most flows live on.
func retwinned(prev, next []Served) (out []Served) {
	before := make(map[Ref]twins.Map, len(prev))
	for _, s := range prev {
		before[s.Ref] = s.Twins
	}
	for _, s := range next {
		if old, ok := before[s.Ref]; ok && !slices.Equal(old, s.Twins) {
			out = append(out, s)
		}
	}
	return out
}

// partition splits list into the entries that stand in other with the same key and addresses, and the rest.
func partition(list, other []Served) (in, out []Served) {
	type identity struct {
		ref   Ref
		key   wgtypes.Key
		addrs [2]netip.Addr
	}
	of := func(s Served) identity {
		id := identity{ref: s.Ref, key: s.Key}
		copy(id.addrs[:], s.Addrs)
		return id
	}
	known := make(map[identity]bool, len(other))
	for _, s := range other {
		known[of(s)] = true
	}
	for _, s := range list {
		if known[of(s)] {
			in = append(in, s)
		} else {
			out = append(out, s)
		}
	}
	return in, out
}
