package peers

import (
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/gateway/overlay"
	"github.com/culvert-dev/culvert/gateway/tunnel"
	"github.com/culvert-dev/culvert/gateway/twins"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// request is a Peer's spec, checked and parsed.
type request struct {
	key   wgtypes.Key
	addrs []netip.Addr // the workstation's; one or two, at most one of a family, IPv4 first
	twins twins.Map
}

// pairs returns the point-to-point links of the request, a /31 and a /127.
func (r request) pairs() []netip.Prefix {
	out := make([]netip.Prefix, len(r.addrs))
	for i, a := range r.addrs {
		out[i] = netip.PrefixFrom(a, a.BitLen()-1)
	}
	return out
}

// peer is the request as the tunnel serves it.
func (r request) peer(ref Ref) tunnel.Peer {
	p := tunnel.Peer{Name: ref.Name, ID: string(ref.UID), Key: r.key, Node: r.addrs, Twins: r.twins}
	for _, a := range r.addrs {
		p.Gateway = append(p.Gateway, policy.GatewayAddr(a))
	}
	return p
}

// refusal says why a Peer is not served: a reason of the Ready condition and a sentence.
type refusal struct{ reason, message string }

// parse checks a Peer's spec for itself; own is the gateway's public key.
func parse(spec v1alpha1.PeerSpec, own wgtypes.Key) (request, *refusal) {
	key, err := parseKey(spec.PublicKey, own)
	if err != nil {
		return request{}, &refusal{v1alpha1.ReasonInvalidSpec, "spec.publicKey: " + err.Error()}
	}
	addrs, err := parseAddresses(spec.Addresses)
	if err != nil {
		return request{}, &refusal{v1alpha1.ReasonInvalidSpec, "spec.addresses: " + err.Error()}
	}
	req := request{key: key, addrs: addrs}
	if req.twins, err = parseTwins(spec.Twins, req.pairs()); err != nil {
		return request{}, &refusal{v1alpha1.ReasonInvalidSpec, "spec.twins: " + err.Error()}
	}
	return req, nil
}

func parseKey(s string, own wgtypes.Key) (wgtypes.Key, error) {
	const encodedLen = 44 // base64 of 32 bytes
	if len(s) != encodedLen {
		return wgtypes.Key{}, fmt.Errorf("%d characters long: a WireGuard key is base64 of 32 bytes, %d characters", len(s), encodedLen)
	}
	key, err := wgtypes.ParseKey(s)
	switch {
	case err != nil:
		return wgtypes.Key{}, fmt.Errorf("not base64 of 32 bytes")
	case key == wgtypes.Key{}:
		return wgtypes.Key{}, fmt.Errorf("all zero, no key of anybody")
	case key == own:
		return wgtypes.Key{}, fmt.Errorf("the gateway's own key")
	}
	return key, nil
}

// parseAddresses checks the workstation's addresses and puts IPv4 first.
func parseAddresses(list []string) ([]netip.Addr, error) {
	if len(list) < 1 || len(list) > 2 {
		return nil, fmt.Errorf("%d entries: accepted are one /32, one /128, or one of each", len(list))
	}
	var addrs []netip.Addr
	for _, s := range list {
		a, err := parseAddress(s)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	if len(addrs) == 2 && addrs[0].Is4() == addrs[1].Is4() {
		return nil, fmt.Errorf("two of one family: accepted are one /32, one /128, or one of each")
	}
	if len(addrs) == 2 && addrs[0].Is6() {
		addrs[0], addrs[1] = addrs[1], addrs[0]
	}
	return addrs, nil
}

func parseAddress(s string) (netip.Addr, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.IsSingleIP() || p.Addr().Is4In6() {
		return netip.Addr{}, fmt.Errorf("%s is not an address with /32 or /128", short(s))
	}
	a := p.Addr()
	switch {
	case !overlay.Holds(p):
		return netip.Addr{}, fmt.Errorf("%s is not in %s", a, overlay.Space(a))
	case overlay.Check(netip.PrefixFrom(a, a.BitLen()-1)) != nil:
		return netip.Addr{}, fmt.Errorf("%s leaves the broadcast address to the gateway", a)
	case policy.GatewayAddr(a).Less(a):
		return netip.Addr{}, fmt.Errorf("%s is odd, which is the gateway's side of a link", a)
	}
	return a, nil
}

// maxTwins is how many twins one Peer may have, as in the CRD.
const maxTwins = 64

// parseTwins reads and checks what a Peer wants translated; links are its own addresses and the gateway's.
func parseTwins(list []v1alpha1.Twin, links []netip.Prefix) (twins.Map, error) {
	if len(list) > maxTwins {
		return nil, fmt.Errorf("%d entries: accepted are %d at most", len(list), maxTwins)
	}
	parsed := make([]twins.Twin, len(list))
	for i, t := range list {
		var err error
		if parsed[i].Real, err = netip.ParsePrefix(t.Real); err != nil {
			return nil, fmt.Errorf("%s is not an address prefix", short(t.Real))
		}
		if parsed[i].Virtual, err = netip.ParsePrefix(t.Virtual); err != nil {
			return nil, fmt.Errorf("%s is not an address prefix", short(t.Virtual))
		}
	}
	return twins.ForPeer(parsed, links)
}

// short quotes untrusted text and cuts it to what a sentence can bear.
func short(s string) string {
	const most = 48
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}
