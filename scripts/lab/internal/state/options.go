// Package state is what the lab remembers between two commands: the options it
// was brought up with, its hosts and where its files lie. It lives under
// /var/lib/culvert-lab/NAME as plain JSON.
package state

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// VPN kinds.
const (
	VPNNone      = "none"
	VPNOpenVPN   = "openvpn"
	VPNWireGuard = "wireguard"
	VPNRoute     = "route"
	VPNTailscale = "tailscale"
	VPNNetBird   = "netbird"
)

// VPNKinds lists the kinds of VPN in the order help shows them.
var VPNKinds = []string{VPNNone, VPNOpenVPN, VPNWireGuard, VPNRoute, VPNTailscale, VPNNetBird}

// Options is what `lab up` was asked for. Prefixes are masked.
type Options struct {
	VPN       string         `json:"vpn"`
	VPNRoutes []netip.Prefix `json:"vpnRoutes"`
	Services  []netip.Prefix `json:"services"` // IPv4 first, then IPv6 with DualStack
	Pods      []netip.Prefix `json:"pods"`     // as Services
	Nodes     int            `json:"nodes"`    // 1 to MaxNodes
	DualStack bool           `json:"dualStack"`
	Light     bool           `json:"light"`
}

// MaxNodes bounds --nodes: more do not fit a small machine, nor the addresses
// set aside for them.
const MaxNodes = 5

// Defaults are the options of a bare `lab up`.
func Defaults() Options {
	return Options{
		VPN:       VPNNone,
		VPNRoutes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Services:  []netip.Prefix{netip.MustParsePrefix("10.130.0.0/16")},
		Pods:      []netip.Prefix{netip.MustParsePrefix("10.132.0.0/16")},
		Nodes:     1,
	}
}

// The IPv6 cluster prefixes of a dual-stack lab. The API server takes service
// prefixes no shorter than /108; nodes get a /64 each of the pods' /56.
var (
	DefaultServices6 = netip.MustParsePrefix("fd00:10:130::/112")
	DefaultPods6     = netip.MustParsePrefix("fd00:10:132::/56")
)

// Complete adds the IPv6 prefixes of a dual-stack lab where none was given and
// checks the whole; its error names the flag and what it accepts.
func (o *Options) Complete() error {
	if !slices.Contains(VPNKinds, o.VPN) {
		return fmt.Errorf("--vpn %s: want one of %s", o.VPN, strings.Join(VPNKinds, ", "))
	}
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		return fmt.Errorf("--nodes %d: want 1 to %d", o.Nodes, MaxNodes)
	}
	if o.DualStack {
		o.Services = addFamily6(o.Services, DefaultServices6)
		o.Pods = addFamily6(o.Pods, DefaultPods6)
	}
	if err := checkFamilies("--services", o.Services, o.DualStack); err != nil {
		return err
	}
	if err := checkFamilies("--pods", o.Pods, o.DualStack); err != nil {
		return err
	}
	return errors.Join(o.checkSizes(), o.checkOverlap())
}

func addFamily6(prefixes []netip.Prefix, six netip.Prefix) []netip.Prefix {
	if len(prefixes) == 1 && prefixes[0].Addr().Is4() {
		return append(slices.Clone(prefixes), six)
	}
	return prefixes
}

func checkFamilies(flag string, prefixes []netip.Prefix, dual bool) error {
	switch {
	case !dual && len(prefixes) == 1 && prefixes[0].Addr().Is4():
		return nil
	case dual && len(prefixes) == 2 && prefixes[0].Addr().Is4() && prefixes[1].Addr().Is6():
		return nil
	case dual:
		return fmt.Errorf("%s %v: want an IPv4 prefix, then an IPv6 prefix", flag, prefixes)
	}
	return fmt.Errorf("%s %v: want one IPv4 prefix (two families need --dual-stack)", flag, prefixes)
}

// checkSizes keeps the limits of kube-apiserver and of one /24 (/64) per node.
func (o *Options) checkSizes() error {
	for _, p := range o.Services {
		if hostBits := p.Addr().BitLen() - p.Bits(); hostBits > 20 || hostBits < 4 {
			return fmt.Errorf("--services %s: want between 4 and 20 host bits", p)
		}
	}
	for _, p := range o.Pods {
		if limit := PodMask(p); p.Bits() > limit-3 {
			return fmt.Errorf("--pods %s: want /%d or shorter, each node takes a /%d", p, limit-3, limit)
		}
	}
	return nil
}

// PodMask is the prefix length one node's pods get out of pods.
func PodMask(pods netip.Prefix) int {
	if pods.Addr().Is6() {
		return 64
	}
	return 24
}

func (o *Options) checkOverlap() error {
	for _, s := range o.Services {
		for _, p := range o.Pods {
			if s.Overlaps(p) {
				return fmt.Errorf("--services %s and --pods %s overlap", s, p)
			}
		}
	}
	for _, own := range Underlay {
		for _, p := range slices.Concat(o.Services, o.Pods) {
			if p.Overlaps(own) {
				return fmt.Errorf("%s overlaps %s, which the lab's own network uses", p, own)
			}
		}
	}
	return nil
}

// Underlay lists the prefixes of the lab's own network, which cluster prefixes
// must leave alone. Package topology draws it.
var Underlay = []netip.Prefix{
	netip.MustParsePrefix("192.168.77.0/24"), netip.MustParsePrefix("2001:db8:77::/64"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:203::/64"),
	netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:51::/64"),
	netip.MustParsePrefix("10.20.0.0/24"), netip.MustParsePrefix("fd20::/64"),
	netip.MustParsePrefix("10.50.0.0/24"), netip.MustParsePrefix("fd50::/64"),
	netip.MustParsePrefix("10.99.0.0/24"), netip.MustParsePrefix("fd99::/64"),
}

// ParsePrefixes reads a comma list of prefixes and masks each.
func ParsePrefixes(list string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, word := range strings.Split(list, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(word))
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is not a prefix such as 10.0.0.0/8 or fd00::/48", word)
		}
		prefixes = append(prefixes, p.Masked())
	}
	return prefixes, nil
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

// CheckName reports why name cannot name a lab: socket paths below its
// directory must stay under 108 bytes.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("lab name %q: want 1 to 20 of a-z, 0-9 and -, not starting or ending with -", name)
	}
	return nil
}
