package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
)

// Section is a part of a plan as people read it.
type Section string

// Sections, in the order shown.
const (
	SectionRoutes    Section = "routes"
	SectionRules     Section = "rules"
	SectionConflicts Section = "conflicts"
	SectionYielded   Section = "yielded"
	// SectionVirtualized is what is reached by virtual addresses only, SectionTwins all that has any, and
	// SectionPools what those of prefixes too large to be mapped one to one are leased from.
	SectionVirtualized Section = "virtualized"
	SectionTwins       Section = "twins"
	SectionPools       Section = "pools"
	SectionProtected   Section = "protected"
	SectionWarnings    Section = "warnings"
)

// Line is one statement of a plan.
type Line struct {
	Section Section `json:"section"`
	// Text says it in one sentence without a full stop.
	Text string `json:"text"`

	columns []string // the same for a table
}

// statement is what makes one line different from another.
type statement struct {
	section Section
	text    string
}

// Lines returns the plan, statement by statement, each once, sections in order.
func (p Plan) Lines() []Line {
	var out []Line
	for _, r := range p.Routes {
		out = append(out, newLine(SectionRoutes, "%s %s (%s)", r.Prefix.String(), routeVerbs[r.Kind], r.Reason))
	}
	for _, r := range []struct {
		family Family
		rule   PlannedRule
	}{{IPv4, p.Rules.V4}, {IPv6, p.Rules.V6}} {
		if r.rule.Priority > 0 {
			out = append(out, newLine(SectionRules, "%s %s: %s", r.family.String(), fmt.Sprintf("priority %d", r.rule.Priority), r.rule.why()))
		}
	}
	for _, c := range p.Conflicts {
		out = append(out, newLine(SectionConflicts, "%s %s %s: %s", c.Subnet.String(), string(c.Kind), c.with(), c.settlement()))
	}
	for _, y := range p.Yielded {
		out = append(out, newLine(SectionYielded, "%s %s", y.String(), "left to another network; names that lead into it are withheld"))
	}
	for _, y := range p.Virtualized {
		out = append(out, newLine(SectionVirtualized, "%s %s", y.String(), "reached by virtual addresses; names that lead into it are answered with them"))
	}
	for _, t := range p.Twins {
		out = append(out, newLine(SectionTwins, "%s %s %s", t.Real.String(), string(t.Kind), t.standIn()))
	}
	for _, y := range p.Pools {
		out = append(out, newLine(SectionPools, "%s %s", y.String(), "leased one by one to the addresses that names lead to"))
	}
	for _, x := range p.Protected {
		out = append(out, newLine(SectionProtected, "%s keeps its way: %s", x.Prefix.String(), x.Reason))
	}
	for _, w := range p.Warnings {
		out = append(out, newLine(SectionWarnings, "%s", w))
	}
	seen := map[statement]bool{}
	return slices.DeleteFunc(out, func(l Line) bool { // routes that differ in their metric read alike
		key := statement{l.Section, l.Text}
		again := seen[key]
		seen[key] = true
		return again
	})
}

func newLine(s Section, format string, columns ...string) Line {
	args := make([]any, len(columns))
	for i, c := range columns {
		args[i] = c
	}
	return Line{s, fmt.Sprintf(format, args...), columns}
}

var routeVerbs = map[RouteKind]string{RouteTunnel: "through the tunnel", RouteThrow: "left alone"}

// why is the reason of a rule, and whose packets it lets pass.
func (r PlannedRule) why() string {
	if len(r.SkipMarks) == 0 {
		return r.Reason
	}
	var marks []string
	for _, m := range r.SkipMarks {
		marks = append(marks, m.String())
	}
	return r.Reason + "; not for packets marked " + strings.Join(marks, ", ")
}

// with says who else routes the conflict's subnet: "inside 10.0.0.0/8 on tun0 (OpenVPN, table main)".
func (c Conflict) with() string {
	return fmt.Sprintf("%s %s %s", relationWords[c.Relation], c.Claim.Prefix, c.Claim.where())
}

// standIn says what programs use in place of a subnet's own addresses.
func (t Twin) standIn() string {
	switch {
	case !t.Virtual.IsValid():
		return "no virtual addresses: " + t.Reason
	case t.Pooled:
		return fmt.Sprintf("leased addresses of the pool; %s on the wire%s", t.Virtual, t.agentNote())
	}
	return t.Virtual.String() + t.agentNote()
}

// settlement says what became of a conflict.
func (c Conflict) settlement() string {
	switch c.Resolution {
	case Unresolved:
		return "unresolved: nothing settles " + somePrefixes(c.Open)
	case Allowed:
		if left := slices.Concat(c.Yielded, c.Virtualized); len(left) > 0 {
			slices.SortFunc(left, comparePrefix)
			return "allowed: the cluster takes it, but not " + somePrefixes(left)
		}
		return "allowed: the cluster takes it"
	case Virtualized:
		if len(c.Yielded) > 0 {
			return "virtualized: virtual addresses stand for it, but not for " + somePrefixes(c.Yielded)
		}
		return "virtualized: virtual addresses stand for " + somePrefixes(c.Virtualized)
	case Yielded:
		return "yielded: the other network keeps " + somePrefixes(c.Yielded)
	case Kept:
		return "kept: it is never-proxied"
	}
	return "protected: it keeps its way"
}

// namedPrefixes bounds how many prefixes one line names.
const namedPrefixes = 4

// somePrefixes names the first of prefixes, and how many there are beyond.
func somePrefixes(prefixes []netip.Prefix) string {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = p.String()
	}
	return someTexts(texts, ",")
}

// someTexts joins the first of texts by a separator, and how many there are beyond.
func someTexts(texts []string, separator string) string {
	if more := len(texts) - namedPrefixes; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(texts[:namedPrefixes], separator), more)
	}
	return strings.Join(texts, separator)
}

// Text is what a person reads of a plan. Sections that have nothing to say are left out; a plan without
// routes says so.
func (p Plan) Text() string {
	var b strings.Builder
	if len(p.Routes) == 0 {
		b.WriteString("routes\n  none: nothing would go through the tunnel\n")
	}
	lines := p.Lines()
	for i, j := 0, 0; i < len(lines); i = j {
		for j = i; j < len(lines) && lines[j].Section == lines[i].Section; j++ {
		}
		fmt.Fprintf(&b, "%s\n", lines[i].Section)
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, l := range lines[i:j] {
			fmt.Fprintf(w, "  %s\n", strings.Join(l.columns, "\t"))
		}
		w.Flush()
	}
	return b.String()
}
