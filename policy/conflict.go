package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Relation says how a cluster subnet lies to a route of the host.
type Relation string

// Relations, read as "subnet RELATION route".
const (
	Inside Relation = "inside"
	Covers Relation = "covers"
	Equal  Relation = "equal"
)

// Resolution says what became of an overlap.
type Resolution string

// Resolutions.
const (
	// Unresolved means that no setting settles all of it; the host keeps what is left.
	Unresolved Resolution = "unresolved"
	// Allowed means that the cluster takes it, or at least some of it.
	Allowed Resolution = "allowed"
	// Yielded means that a setting leaves it to the host's other network.
	Yielded Resolution = "yielded"
	// Virtualized means that a setting hides it, or some of it, behind virtual addresses, and the host
	// keeps its own.
	Virtualized Resolution = "virtualized"
	// Kept means that a never-proxied prefix leaves it to the host.
	Kept Resolution = "kept"
	// Sheltered means that a protected address, or a LAN that no setting names, stays as it is.
	Sheltered Resolution = "protected"
)

// Conflict is one overlap of a cluster subnet with a route of somebody else.
type Conflict struct {
	Subnet   netip.Prefix `json:"subnet"`
	Kind     SubnetKind   `json:"kind"`
	Relation Relation     `json:"relation"`
	// Overlap is the part that both claim.
	Overlap netip.Prefix `json:"overlap"`
	Claim   Claim        `json:"claim"`

	Resolution Resolution `json:"resolution"`
	// Open is the part of Overlap that no setting settles, as few prefixes as possible: protected
	// addresses in the midst of it are not left out. Empty if the conflict is settled.
	Open []netip.Prefix `json:"open,omitempty"`
	// NoTwin says that a rule virtualizes some of Open, which cannot be: it has no twin.
	NoTwin bool `json:"noTwin,omitempty"`
	// Yielded is the part of Overlap that a setting leaves to the claim, or that a connected network
	// keeps, likewise.
	Yielded []netip.Prefix `json:"yielded,omitempty"`
	// Virtualized is the part of Overlap that is reached by virtual addresses.
	Virtualized []netip.Prefix `json:"virtualized,omitempty"`
}

// Claim is a route of somebody else, or an IPsec policy.
type Claim struct {
	Prefix netip.Prefix `json:"prefix"`
	// Rule is the priority of the first rule that leads to the route; 0 for an IPsec policy.
	Rule      uint32 `json:"rule"`
	Table     uint32 `json:"table,omitempty"`
	TableName string `json:"tableName,omitempty"`
	// Type is that of the route, or [TypeIPsec] or [TypeIPsecDiscard].
	Type RouteType `json:"type"`
	// Metric is the route's, or the policy's priority.
	Metric   uint32 `json:"metric,omitempty"`
	Protocol uint8  `json:"protocol,omitempty"`
	// Interfaces and NextHops have one entry per next hop; a route onto the link has none of the latter.
	// An IPsec policy has no interface, and the other end of its tunnel for a next hop.
	Interfaces []string     `json:"interfaces,omitempty"`
	NextHops   []netip.Addr `json:"nextHops,omitempty"`
	// Owner is who probably made the route; "" if nothing is known.
	Owner string `json:"owner,omitempty"`
	// VPN says whether the owner leads into some other network.
	VPN bool `json:"vpn,omitempty"`
	// LAN is a network connected to this host: it is taken only where a setting names it, or a part of
	// it, exactly.
	LAN bool `json:"lan,omitempty"`
}

// findPairs notes which subnets, and virtual addresses, overlap with claims: those of the prefix just
// entered among themselves and with what lies around it. Of one subnet they come nearly as conflicts are
// shown.
func (s *sweep) findPairs(lo, hi int) {
	for i := hi - 1; i >= lo; i-- {
		if k := s.items[i].kind; k != itemWant && k != itemClaim && k != itemVIP {
			continue
		}
		for _, f := range s.stack {
			for j := f.hi - 1; j >= f.lo; j-- {
				s.pair(s.items[i], s.items[j])
				s.pair(s.items[j], s.items[i])
			}
		}
		for j := hi - 1; j >= lo; j-- {
			s.pair(s.items[i], s.items[j])
		}
	}
}

func (s *sweep) pair(a, b item) {
	switch {
	case b.kind != itemClaim:
	case a.kind == itemWant:
		s.pairs = append(s.pairs, pair{a.index, b.index})
	case a.kind == itemVIP:
		if x := &s.vips[a.index]; x.claim == 0 { // the sweep's order is not that of the facts
			x.claim = b.index + 1
		}
	}
}

// conflicts turns the pairs into conflicts, now that every address has its verdict. A route in pieces,
// because throw routes take parts of it away, is one conflict, and so is one that is there twice.
func (s *sweep) conflicts() []Conflict {
	s.sortPairs()
	s.pairs = slices.CompactFunc(s.pairs, s.onePair)
	unsettled, left := joined(s.open, s.sheltered), joined(joined(s.yielded, s.lan), s.sheltered)
	kept := joined(s.yielded, s.lan)
	out := make([]Conflict, len(s.pairs))
	for i, p := range s.pairs {
		w, c := s.wants[p.want], s.claims[p.claim]
		x := &out[i]
		x.Subnet, x.Kind = w.prefix, w.kind
		s.v.describe(&x.Claim, c)
		x.Relation, x.Overlap = relate(w.prefix, c.named)
		if i > 0 && out[i-1].Overlap == x.Overlap { // all routes around a subnet
			same := &out[i-1]
			x.Open, x.NoTwin, x.Yielded, x.Virtualized, x.Resolution = same.Open, same.NoTwin, same.Yielded, same.Virtualized, same.Resolution
			continue
		}
		x.Open, x.NoTwin = touching(unsettled.within(x.Overlap), s.open), s.twinless.overlaps(x.Overlap)
		x.Yielded = touching(left.within(x.Overlap), kept)
		x.Virtualized = s.virtual.within(x.Overlap)
		x.Resolution = s.resolution(x)
	}
	return out
}

// touching returns those of prefixes that have an address in set.
func touching(prefixes []netip.Prefix, set rangeSet) []netip.Prefix {
	return slices.DeleteFunc(prefixes, func(p netip.Prefix) bool { return !set.overlaps(p) })
}

// sortPairs sorts pairs rather than conflicts, which are 40 times as large: into one heap per subnet
// first, where they are nearly in order.
func (s *sweep) sortPairs() {
	ends := make([]int, len(s.wants)+1)
	for _, p := range s.pairs {
		ends[p.want+1]++
	}
	for i := range s.wants {
		ends[i+1] += ends[i]
	}
	sorted := make([]pair, len(s.pairs))
	for _, p := range s.pairs {
		sorted[ends[p.want]] = p
		ends[p.want]++
	}
	s.pairs = sorted
	lo := 0
	for i := range s.wants {
		slices.SortFunc(s.pairs[lo:ends[i]], s.comparePairs)
		lo = ends[i]
	}
}

// comparePairs orders as conflicts are shown: by subnet, then route, the one that counts first.
func (s *sweep) comparePairs(a, b pair) int {
	if a.want != b.want {
		return int(a.want - b.want) // subnets are sorted
	}
	x, y := s.claims[a.claim], s.claims[b.claim]
	if c := comparePrefix(x.named, y.named); c != 0 {
		return c
	}
	return s.v.compareClaims(y, x)
}

// onePair reports whether two pairs, neighbours in order, say the same.
func (s *sweep) onePair(a, b pair) bool {
	return a.want == b.want && s.claims[a.claim].named == s.claims[b.claim].named && s.comparePairs(a, b) == 0
}

func relate(subnet, route netip.Prefix) (Relation, netip.Prefix) {
	switch {
	case subnet == route:
		return Equal, subnet
	case covers(route, subnet):
		return Inside, subnet
	}
	return Covers, route
}

func (s *sweep) resolution(c *Conflict) Resolution {
	switch {
	case len(c.Open) > 0:
		return Unresolved
	case s.tunnel.overlaps(c.Overlap):
		return Allowed
	case len(c.Virtualized) > 0:
		return Virtualized
	case s.yielded.overlaps(c.Overlap):
		return Yielded
	case s.never.overlaps(c.Overlap):
		return Kept
	}
	return Sheltered
}

// describe turns a claim into what people and other programs read.
func (v *view) describe(d *Claim, c claim) {
	r := v.route(c.route)
	d.Prefix, d.Rule, d.Table, d.Type, d.Metric, d.Protocol, d.LAN = c.named, c.rule, r.Table, r.Type, r.Metric, r.Protocol, v.isLAN(r)
	if d.Type == "" {
		d.Type = Unicast
	}
	if r.Table != 0 {
		d.TableName = tableName(r.Table)
	}
	if isIPsec(r.Type) {
		d.VPN = r.Type == TypeIPsec
	} else if len(r.NextHops) == 1 {
		l := v.link(r.NextHops[0].Link)
		d.Interfaces, d.Owner, d.VPN = l.names, l.owner.owner, l.owner.class == classVPN
	} else {
		v.describeHops(d, r.NextHops)
	}
	for _, h := range r.NextHops {
		if h.Addr.IsValid() {
			d.NextHops = append(d.NextHops, h.Addr)
		}
	}
}

// describeHops describes several next hops. An owner is named only if all of them are its.
func (v *view) describeHops(d *Claim, hops []NextHop) {
	for i, h := range hops {
		l := v.link(h.Link)
		d.Interfaces = append(d.Interfaces, l.Name)
		if i == 0 {
			d.Owner, d.VPN = l.owner.owner, l.owner.class == classVPN
		} else if l.owner.owner != d.Owner {
			d.Owner, d.VPN = "", false
		}
	}
}

// where says how a claim's route leaves the host: "on tun0 (OpenVPN, table main)".
func (v *view) where(c claim) string { return v.described(c).where() }

func (v *view) described(c claim) Claim {
	var d Claim
	v.describe(&d, c)
	return d
}

// Who names the network that has the claim as well as it is known: "OpenVPN on tun0", "eth1", or "" when
// nothing leads anywhere.
func (c Claim) Who() string {
	if c.Type != Unicast || len(c.Interfaces) == 0 {
		return ""
	}
	links := strings.Join(c.Interfaces, ", ")
	if c.Owner == "" {
		return links
	}
	return c.Owner + " on " + links
}

func (c Claim) where() string {
	if isIPsec(c.Type) {
		return c.policy()
	}
	place := string(c.Type) // blackhole and its kin lead nowhere, though IPv6 names an interface
	if c.Type == Unicast && len(c.Interfaces) > 0 {
		place = "on " + strings.Join(c.Interfaces, ", ")
	}
	var notes []string
	if c.Owner != "" {
		notes = append(notes, c.Owner)
	} else if c.LAN {
		notes = append(notes, "connected network")
	}
	if c.Table != 0 {
		notes = append(notes, "table "+c.TableName)
	} else {
		notes = append(notes, fmt.Sprintf("rule %d", c.Rule))
	}
	return place + " (" + strings.Join(notes, ", ") + ")"
}

// policy is where the packets that an IPsec policy catches go: "IPsec policy (to 203.0.113.9)".
func (c Claim) policy() string {
	switch {
	case c.Type == TypeIPsecDiscard:
		return "IPsec policy (discard)"
	case len(c.NextHops) > 0:
		return fmt.Sprintf("IPsec policy (to %s)", c.NextHops[0])
	}
	return "IPsec policy"
}

// effective returns those protected prefixes that hold back a wanted address.
func (s *sweep) effective(protected []Protected) []Protected {
	out := []Protected{}
	for _, p := range protected {
		if s.sheltered.overlaps(p.Prefix) {
			out = append(out, p)
		}
	}
	return out
}

// warnings says what is less than was asked for.
func (s *sweep) warnings(protected []Protected) []string {
	var out []string
	for _, p := range slices.Concat(protected, s.lost) {
		out = append(out, fmt.Sprintf("%s does not go through the tunnel: %s", p.Prefix, p.Reason))
	}
	for _, c := range s.claims {
		if s.v.isLAN(s.v.route(c.route)) && s.lan.overlaps(c.prefix) {
			out = append(out, fmt.Sprintf("%s %s is a connected network and stays with it; name it in routing.allowConflictingSubnets to take it",
				c.prefix, s.v.where(c)))
		}
	}
	return out
}
