package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// VirtualInput is what the choice of virtual subnets follows from.
type VirtualInput struct {
	// Settings may name the subnets; of the rest only what is wanted matters.
	Settings Settings
	Cluster  Cluster
	Facts    Facts
	// Own says what among the facts is this connection's own doing.
	Own Own
	// Overlay are the Peer's prefixes, if they are known already, and Protected the addresses that must
	// never enter the tunnel: virtual addresses must be neither.
	Overlay   []netip.Prefix
	Protected []Protected
	// Remembered is what was chosen for this cluster before, with the twins made since; the zero value if
	// nothing was.
	Remembered Virtual
	// Others are the virtual subnets of other clusters and connections. They are avoided if possible.
	Others []netip.Prefix
	// ULA is the random /48 that this machine keeps (RFC 4193); not valid means that there are no IPv6
	// twins unless settings name a subnet.
	ULA netip.Prefix
	// NoClassE says that this host cannot route 240.0.0.0/4.
	NoClassE bool
}

// ErrNoVirtualSubnet is what [ChooseVirtual] fails with when something is in the way of every subnet that
// it could choose. Subnets that settings name are other errors.
var ErrNoVirtualSubnet = errors.New("no virtual subnet is free")

// smallVirtualSubnet is for hosts that cannot route class E: a small part of public space that is hardly
// used, and that a connection to such a cluster hides from its host.
var smallVirtualSubnet = netip.MustParsePrefix("211.55.48.0/20")

// virtualCandidates are tried in this order: the default, what lies behind it, then what lies before. The
// overlay's /8s are left out. 240.0.0.0/8 is the last: clouds that give class E to pods begin there.
var virtualCandidates = func() []netip.Prefix {
	var out []netip.Prefix
	for _, first := range []byte{246, 247, 248, 249, 250, 251, 252, 253, 254, 242, 241, 240} {
		out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{first}), 8))
	}
	return out
}()

// ChooseVirtual returns the virtual subnets of a connection, when it connects: those that settings name,
// which is an error if something is in their way; or those remembered, or else the first that nobody
// routes. What settings named for IPv4 before is not taken without them. Remembered twins of a family stay if
// its subnet does.
//
// With an error it returns what can be had all the same: the family that it is about has no subnet.
func ChooseVirtual(in VirtualInput) (Virtual, error) {
	c := newChooser(in)
	v := Virtual{NoClassE: in.NoClassE}
	var err4, err6 error
	v.V4, err4 = c.choose4()
	v.V6, err6 = c.choose6()
	for _, t := range in.Remembered.Assigned {
		f := familyOf(t.Real.Addr())
		if t.isTwin() && v.subnet(f).IsValid() && v.subnet(f) == in.Remembered.subnet(f) {
			v.Assigned = append(v.Assigned, t)
		}
	}
	return v, errors.Join(err4, err6)
}

// chooser knows what is in the way.
type chooser struct {
	in        VirtualInput
	obstacles []obstacle
}

// obstacle is a prefix that no virtual subnet may overlap.
type obstacle struct {
	prefix netip.Prefix
	what   func() string // "on tun0 (OpenVPN, table main)"
}

func newChooser(in VirtualInput) *chooser {
	c := &chooser{in: in}
	v := newView(in.Facts, in.Own)
	for i := range v.routes {
		if r := &v.routes[i]; r.Prefix.IsValid() && !v.whole[i] && !v.isOwn(r) && !isWide6(r.Prefix) {
			c.add(r.Prefix, func() string { return v.where(claim{named: r.Prefix, route: int32(i)}) })
		}
	}
	for _, w := range withHidden(wants(in.Cluster, in.Settings), in.Settings) {
		c.add(w.prefix, func() string { return "of the cluster (" + string(w.kind) + ")" })
	}
	for _, p := range in.Overlay {
		c.add(p, func() string { return "of the tunnel itself" })
	}
	for _, p := range in.Protected {
		c.add(p.Prefix, func() string { return "(" + p.Reason + ")" })
	}
	slices.SortFunc(c.obstacles, func(a, b obstacle) int {
		if d := comparePrefix(a.prefix, b.prefix); d != 0 {
			return d
		}
		return strings.Compare(a.what(), b.what())
	})
	return c
}

// add adds an obstacle, if it is where a virtual subnet could be.
func (c *chooser) add(p netip.Prefix, what func() string) {
	if !p.IsValid() {
		return
	}
	s := c.in.Settings
	near := p.Addr().Is6() || slices.ContainsFunc(
		validPrefixes(classE, smallVirtualSubnet, s.VirtualSubnet), p.Overlaps)
	if near {
		c.obstacles = append(c.obstacles, obstacle{p, what})
	}
}

// isWide6 reports whether p is an IPv6 prefix shorter than a site's: who routes it has nobody at a random
// place in it.
func isWide6(p netip.Prefix) bool { return p.Addr().Is6() && p.Bits() < siteBits }

// inTheWay names the first obstacle to a subnet; "" if there is none.
func (c *chooser) inTheWay(p netip.Prefix) string {
	for _, o := range c.obstacles {
		if o.prefix.Overlaps(p) {
			return o.prefix.String() + " " + o.what()
		}
	}
	return ""
}

// firstFree returns the first of candidates that nothing is in the way of, rather one that others do not
// have; not valid if there is none.
func (c *chooser) firstFree(candidates []netip.Prefix) netip.Prefix {
	var second netip.Prefix
	for _, p := range candidates {
		if c.inTheWay(p) != "" {
			continue
		}
		if !slices.ContainsFunc(validPrefixes(slices.Clone(c.in.Others)...), p.Overlaps) {
			return p
		}
		if !second.IsValid() {
			second = p
		}
	}
	return second
}

func (c *chooser) choose4() (netip.Prefix, error) {
	if p := c.in.Settings.VirtualSubnet; p.IsValid() {
		return c.named("cluster.virtualIPSubnet", p, cannotBeVirtual4(p, c.in.NoClassE))
	}
	candidates := virtualCandidates
	if c.in.NoClassE {
		candidates = []netip.Prefix{smallVirtualSubnet}
	}
	// One that settings named lasts as long as they do: root may have allowed it for that only.
	if p := c.in.Remembered.V4; slices.Contains(candidates, p) && c.inTheWay(p) == "" {
		return p, nil
	}
	p := c.firstFree(candidates)
	if !p.IsValid() {
		return p, fmt.Errorf("%w: %s; name one that is free with cluster.virtualIPSubnet", ErrNoVirtualSubnet, c.collisions(candidates))
	}
	return p, nil
}

// collisions says what is in the way of candidates, each obstacle once.
func (c *chooser) collisions(candidates []netip.Prefix) string {
	var texts, whats []string
	for _, p := range candidates {
		what := c.inTheWay(p)
		if !slices.Contains(whats, what) {
			whats = append(whats, what)
			texts = append(texts, fmt.Sprintf("%s overlaps %s", p, what))
		}
	}
	if more := len(texts) - namedPrefixes; more > 0 {
		texts = append(texts[:namedPrefixes], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, ", ")
}

// named returns a subnet that a setting names, or says why it cannot be had.
func (c *chooser) named(key string, p netip.Prefix, cannot string) (netip.Prefix, error) {
	if cannot == "" {
		if what := c.inTheWay(p); what != "" {
			cannot = "it overlaps " + what
		}
	}
	if cannot != "" {
		return netip.Prefix{}, fmt.Errorf("%s %s cannot be used: %s; name another, or none to have one found", key, p, cannot)
	}
	return p, nil
}

// ulaTries bounds the search for an IPv6 subnet, of which nearly every one is free.
const ulaTries = 256

func (c *chooser) choose6() (netip.Prefix, error) {
	if p := c.in.Settings.VirtualIPv6Subnet; p.IsValid() {
		return c.named("cluster.virtualIPv6Subnet", p, cannotBeVirtual6(p))
	}
	if p := c.in.Remembered.V6; p.IsValid() && cannotBeVirtual6(p) == "" && c.inTheWay(p) == "" {
		return p, nil
	}
	if !c.in.ULA.IsValid() {
		return netip.Prefix{}, nil
	}
	p := c.firstFree(c.sites())
	if !p.IsValid() {
		return p, fmt.Errorf("%w: %s overlaps %s; name one that is free with cluster.virtualIPv6Subnet", ErrNoVirtualSubnet, c.in.ULA, c.inTheWay(c.in.ULA))
	}
	return p, nil
}

// sites returns the machine's own prefix, and others that follow from it, as random as it is.
func (c *chooser) sites() []netip.Prefix {
	out := []netip.Prefix{c.in.ULA.Masked()}
	draws := drawer{seed: c.in.ULA.Addr().As16()}
	for range ulaTries {
		out = append(out, siteOf(draws.next()))
	}
	return out
}

// cannotBeVirtual4 says why an IPv4 prefix can be no virtual subnet of such a host, whatever it routes;
// "" if it can.
func cannotBeVirtual4(p netip.Prefix, noClassE bool) string {
	_, err := virtualIPSubnet(p.String())
	switch {
	case err != nil:
		return err.Error()
	case covers(endOfClassE, p):
		return fmt.Sprintf("it lies in %s, which some take for broadcast (RFC 919)", endOfClassE)
	case noClassE && classE.Overlaps(p):
		return fmt.Sprintf("this host does not route %s", classE)
	}
	return ""
}

// cannotBeVirtual6 is its like for IPv6.
func cannotBeVirtual6(p netip.Prefix) string {
	if _, err := virtualIPv6Subnet(p.String()); err != nil {
		return err.Error()
	}
	return ""
}
