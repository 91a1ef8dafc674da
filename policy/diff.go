package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Change is one statement that two plans do not share.
type Change struct {
	// Op is "+" for what the new plan says and the old does not, "-" for the reverse.
	Op string `json:"op"`
	Line
}

// String is the change as a line: "+ 10.132.64.0/18 through the tunnel (pods)".
func (c Change) String() string {
	if c.Section == SectionRoutes {
		return c.Op + " " + c.Text
	}
	return fmt.Sprintf("%s %s: %s", c.Op, strings.TrimSuffix(string(c.Section), "s"), c.Text)
}

// DiffPlans returns the statements that would change from one plan to another, section by section: in
// each first what goes, then what comes.
func DiffPlans(from, to Plan) []Change {
	before, after := from.Lines(), to.Lines()
	out := append(unshared("-", before, after), unshared("+", after, before)...)
	slices.SortStableFunc(out, func(a, b Change) int { return sectionOrder(a.Section) - sectionOrder(b.Section) })
	return out
}

// unshared returns those lines that are not among others.
func unshared(op string, lines, others []Line) []Change {
	there := map[statement]bool{}
	for _, l := range others {
		there[statement{l.Section, l.Text}] = true
	}
	out := []Change{}
	for _, l := range lines {
		if !there[statement{l.Section, l.Text}] {
			out = append(out, Change{op, l})
		}
	}
	return out
}

func sectionOrder(s Section) int { return slices.Index(sectionsOfPlan, s) }

var sectionsOfPlan = []Section{SectionRoutes, SectionRules, SectionConflicts, SectionYielded,
	SectionVirtualized, SectionTwins, SectionPools, SectionProtected, SectionWarnings}
