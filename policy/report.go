package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
)

// reportLines bounds the lines of a report: a person reads no more, and the choice is the same.
const reportLines = 50

// ConflictReport is what a person reads when nothing settles some of the conflicts: every overlap,
// who routes it, and what can be done. It is "" if there is nothing to settle.
func (p Plan) ConflictReport() string {
	open := p.Unsettled()
	if len(open) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(reportHeadline(open))
	b.WriteString("\n\n")
	writeConflicts(&b, open)
	p.writeTwinless(&b, open)
	p.writeChoices(&b, open)
	return b.String()
}

func reportHeadline(open []Conflict) string {
	n := countSubnets(open)
	if n == 1 {
		return "error: 1 cluster subnet is already routed by another network"
	}
	return fmt.Sprintf("error: %d cluster subnets are already routed by another network", n)
}

func countSubnets(open []Conflict) int {
	subnets := map[netip.Prefix]bool{}
	for _, c := range open {
		subnets[c.Subnet] = true
	}
	return len(subnets)
}

func writeConflicts(b *strings.Builder, open []Conflict) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, c := range open[:min(len(open), reportLines)] {
		fmt.Fprintf(w, "  %s\t%s\t%s %s %s\n", c.Subnet, c.Kind, relationWords[c.Relation], c.Claim.Prefix, c.Claim.where())
	}
	w.Flush()
	if more := len(open) - reportLines; more > 0 {
		fmt.Fprintf(b, "  and %d more overlaps with the same subnets\n", more)
	}
}

var relationWords = map[Relation]string{Inside: "inside", Covers: "covers", Equal: "equal to"}

// writeTwinless says which of the subnets have no virtual addresses, and why, where there is a virtual
// subnet at all.
func (p Plan) writeTwinless(b *strings.Builder, open []Conflict) {
	for _, t := range p.Twins {
		overlaps := func(c Conflict) bool { return c.Overlap.Overlaps(t.Real) }
		if !t.Virtual.IsValid() && slices.ContainsFunc(open, overlaps) {
			fmt.Fprintf(b, "\n  no virtual IPs for %s: %s\n", t.Real, t.Reason)
		}
	}
}

// haveTwins reports whether all of prefixes could be hidden behind virtual addresses.
func (p Plan) haveTwins(prefixes []netip.Prefix) bool {
	var real []netip.Prefix
	for _, t := range p.Twins {
		if t.Virtual.IsValid() {
			real = append(real, t.Real)
		}
	}
	set := rangesOf(real...)
	return !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return !set.covers(p) })
}

func (p Plan) writeChoices(b *strings.Builder, open []Conflict) {
	who, them := whose(open), "them"
	if countSubnets(open) == 1 {
		them = "it"
	}
	width := max(32, len("take "+them+" from "+who))
	choice := func(what, flags string) { fmt.Fprintf(b, "  %-*s  culvert connect %s\n", width, what, flags) }
	b.WriteString("\nchoose one:\n")
	if p.haveTwins(toTake(open)) {
		choice("use virtual IPs for "+them, "--on-conflict virtualize")
	}
	takes := !slices.ContainsFunc(open, func(c Conflict) bool { return c.NoTwin }) // else the rule would still stand
	if takes {
		choice("take "+them+" from "+who, "--allow-conflicting-subnets "+joinPrefixes(toTake(open)))
	}
	choice("leave "+them+" to "+who, "--on-conflict yield")
	if takes {
		b.WriteString("A team settles it once with routing.allowConflictingSubnets in its Policy.\n")
	}
}

// whose names the network that has all that is open, as far as it is one.
func whose(open []Conflict) string {
	owner := open[0].Claim.Owner
	name, connection := strings.CutPrefix(owner, connectionOwner)
	switch {
	case slices.ContainsFunc(open, func(c Conflict) bool { return !c.Claim.VPN }):
		return "the other network"
	case connection && !slices.ContainsFunc(open, func(c Conflict) bool { return c.Claim.Owner != owner }):
		return "connection " + name
	}
	return "the VPN"
}

// toTake returns the prefixes to allow so that nothing is left open, sorted, none inside another. A
// LAN that lies in one of them stays as it is: it would have to be named by itself.
func toTake(open []Conflict) []netip.Prefix {
	var all, out []netip.Prefix
	for _, c := range open {
		all = append(all, c.Open...)
	}
	slices.SortFunc(all, comparePrefix)
	for _, p := range all {
		if n := len(out); n == 0 || !covers(out[n-1], p) {
			out = append(out, p)
		}
	}
	return out
}

func joinPrefixes(prefixes []netip.Prefix) string {
	var texts []string
	for _, p := range prefixes {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ",")
}
