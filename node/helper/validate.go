package helper

import (
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// Bounds of what a request can hold.
const (
	maxRoutes   = 4096
	maxDomains  = 1024 // a prefix of /9 has 128 reverse zones
	minMTU      = 1280 // RFC 8200, section 5
	minMTUIPv4  = 576  // RFC 1122, section 3.3.3
	maxMTU      = 9000
	maxPriority = 32765
	maxMarks    = 256 // per family; the kernel gets one rule whatever their number
)

// checkOpen returns an error unless r asks for something a connection may have.
func checkOpen(r OpenRequest) error {
	if r.Interface != "" {
		if _, ok := hostnet.Number(r.Interface); !ok {
			return refuse("interface %q: the name has to be culvert0 to culvert63", r.Interface)
		}
	}
	if err := checkAddresses(r.Addresses); err != nil {
		return err
	}
	return checkMTU(r.MTU, r.Addresses)
}

// checkAddresses wants overlay addresses, at least one and at most one per family.
func checkAddresses(addrs []netip.Prefix) error {
	if len(addrs) == 0 || len(addrs) > 2 {
		return refuse("%d interface addresses: one or two are needed, one per family", len(addrs))
	}
	if len(addrs) == 2 && addrs[0].Addr().Is4() == addrs[1].Addr().Is4() {
		return refuse("interface addresses %s and %s are of one family", addrs[0], addrs[1])
	}
	for _, a := range addrs {
		if err := checkNormal(a); err != nil {
			return err
		}
		inRange := func(r netip.Prefix) bool { return r.Contains(a.Addr()) }
		if !a.IsSingleIP() || !slices.ContainsFunc(overlayRanges, inRange) {
			return refuse("interface address %s: it has to be a /32 of 240.0.0.0/4 or a /128 of fc00::/7", a)
		}
		if a.Addr() == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return refuse("interface address %s is the broadcast address", a)
		}
	}
	return nil
}

// checkMTU bounds the MTU; without IPv6 it can be smaller.
func checkMTU(mtu int, addrs []netip.Prefix) error {
	low := minMTUIPv4
	if slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		low = minMTU
	}
	if mtu < low || mtu > maxMTU {
		return refuse("MTU %d: it has to be %d to %d", mtu, low, maxMTU)
	}
	return nil
}

// checkState returns an error unless s is a state that the connection with the interface opened may
// ask for.
func (l Limits) checkState(s, open hostnet.State) error {
	switch {
	case s.Interface != open.Interface:
		return refuse("interface %q is not this connection's, which is %s", s.Interface, open.Interface)
	case s.Table != 0 && s.Table != hostnet.Table(open.Interface):
		return refuse("table %d does not belong to %s", s.Table, open.Interface)
	case !sameAddresses(s.Addresses, open.Addresses):
		return refuse("the addresses of %s are fixed until it is closed", open.Interface)
	}
	if err := checkMTU(s.MTU, s.Addresses); err != nil {
		return err
	}
	if err := checkPriority(s); err != nil {
		return err
	}
	if err := errors.Join(checkMarks(s.SkipMarks.V4), checkMarks(s.SkipMarks.V6)); err != nil {
		return err
	}
	if err := l.checkRoutes(s.Routes); err != nil {
		return err
	}
	return checkDNS(s)
}

// sameAddresses compares without regard to order. Neither list has one twice, or they differ.
func sameAddresses(a, b []netip.Prefix) bool {
	lacks := func(list []netip.Prefix) func(netip.Prefix) bool {
		return func(p netip.Prefix) bool { return !slices.Contains(list, p) }
	}
	return len(a) == len(b) && !slices.ContainsFunc(a, lacks(b)) && !slices.ContainsFunc(b, lacks(a))
}

// checkPriority bounds the rules' priorities. A family with routes needs one.
func checkPriority(s hostnet.State) error {
	for _, p := range []int{s.Priority.V4, s.Priority.V6} {
		if p < 0 || p > maxPriority {
			return refuse("rule priority %d: it has to be 1 to %d, or 0 for no rule", p, maxPriority)
		}
	}
	return nil
}

// checkMarks wants marks that some packets carry and packets without a mark do not: those are what
// the tunnel is for.
func checkMarks(marks []hostnet.Mark) error {
	if len(marks) > maxMarks {
		return refuse("%d marks to leave alone: at most %d are possible", len(marks), maxMarks)
	}
	for _, m := range marks {
		if m.Value == 0 || m.Value&^m.Mask != 0 {
			return refuse("mark %s: its value has to be other than 0 and within its mask", m)
		}
	}
	return nil
}

// checkRoutes checks each route against the limits. What is thrown back to the host's own routes
// takes nothing from anyone, so any prefix but a default route may be.
func (l Limits) checkRoutes(routes []hostnet.Route) error {
	if len(routes) > maxRoutes {
		return refuse("%d routes: at most %d are possible", len(routes), maxRoutes)
	}
	seen := make(map[netip.Prefix]bool, len(routes))
	for _, r := range routes {
		if err := l.checkRoute(r); err != nil {
			return err
		}
		if seen[r.Prefix] {
			return refuse("prefix %s comes twice", r.Prefix)
		}
		seen[r.Prefix] = true
	}
	return nil
}

// checkReset wants prefixes that could have been routed through the tunnel.
func (l Limits) checkReset(prefixes []netip.Prefix) error {
	if len(prefixes) == 0 || len(prefixes) > maxRoutes {
		return refuse("%d prefixes to end the sockets into: 1 to %d are possible", len(prefixes), maxRoutes)
	}
	for _, p := range prefixes {
		if err := l.allows(p); err != nil {
			return err
		}
	}
	return nil
}

// checkRoute checks one route.
func (l Limits) checkRoute(r hostnet.Route) error {
	if !r.Throw {
		return l.allows(r.Prefix)
	}
	if err := checkNormal(r.Prefix); err != nil {
		return err
	}
	if r.Prefix.Bits() == 0 {
		return refuse("prefix %s is the default route", r.Prefix)
	}
	return nil
}

// checkDNS wants the connection's own addresses as servers and names as domains.
func checkDNS(s hostnet.State) error {
	if s.DNS.IsZero() {
		return nil
	}
	own := func(a netip.Addr) bool {
		return slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	}
	switch {
	case len(s.DNS.Servers) == 0 || len(s.DNS.Servers) > len(s.Addresses):
		return refuse("%d DNS servers: one per address of the interface is possible", len(s.DNS.Servers))
	case len(s.DNS.Options) > 0:
		return refuse("DNS options are the host's")
	case len(s.DNS.Search) > maxDomains || len(s.DNS.Domains) > maxDomains:
		return refuse("%d search and %d routing domains: at most %d of each are possible", len(s.DNS.Search), len(s.DNS.Domains), maxDomains)
	}
	for _, a := range s.DNS.Servers {
		if !own(a) {
			return refuse("DNS server %s is not an address of %s", a, s.Interface)
		}
	}
	for _, d := range slices.Concat(s.DNS.Search, s.DNS.Domains) {
		if !isDomain(d) {
			return refuse("domain %q is not a name of 1 to 63 letters, digits, dashes and underscores per label", d)
		}
	}
	return nil
}

var label = regexp.MustCompile(`^[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?$`)

// isDomain reports whether d is a domain name that is not the root (RFC 1035, section 2.3.4; the
// underscore as in RFC 8552). A trailing dot is allowed.
func isDomain(d string) bool {
	d = strings.TrimSuffix(d, ".")
	if d == "" || len(d) > 253 {
		return false
	}
	for l := range strings.SplitSeq(d, ".") {
		if !label.MatchString(l) {
			return false
		}
	}
	return true
}
