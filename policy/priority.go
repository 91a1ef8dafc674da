package policy

import (
	"fmt"
	"slices"
)

// lastPriority is the latest place for our rule where the host has no rule for table main: just
// before where that rule usually is (32766, ip-rule(8)).
const lastPriority = 32765

// rule chooses the priority of our rule: as late as still wins every address that leads into the tunnel,
// so that we stand in the way of nothing else, and never one that another program's rule has.
func (s *sweep) rule(f Family, claims map[Family][]claim) PlannedRule {
	v := s.v
	if !s.routed().has(f) || v.single != nil {
		return PlannedRule{}
	}
	before, reason := v.mainPriority(f)
	if c, ok := s.firstSteering(claims[f]); ok && c.rule <= before {
		before, reason = c.rule, v.steers(f, c)
	}
	priority := v.freeBefore(f, before)
	for g, ok := v.leap(f, priority); ok; g, ok = v.leap(f, priority) {
		reason = fmt.Sprintf("before rule %d, a goto that would leap over ours", g)
		priority = v.freeBefore(f, g)
	}
	return PlannedRule{Priority: int(priority), Reason: reason, SkipMarks: v.skipMarks(f, priority)}
}

// freeBefore returns the latest priority before another that no other program's rule has, at least 1.
func (v *view) freeBefore(f Family, before uint32) uint32 {
	used := v.priorities(f)
	priority := before - 1
	for priority > 1 && used[priority] {
		priority--
	}
	return priority
}

// leap returns the first rule that sends ordinary packets past priority.
func (v *view) leap(f Family, priority uint32) (uint32, bool) {
	for _, r := range v.all[f] {
		if _, live := liven(r); live && r.Action == ActionGoto && 1 < r.Priority && r.Priority < priority && priority < r.Goto {
			return r.Priority, true
		}
	}
	return 0, false
}

// mainPriority returns the priority before which our rule stays even if nothing steers yet: routes
// in table main come and go.
func (v *view) mainPriority(f Family) (uint32, string) {
	for _, l := range v.rules[f] {
		if l.Table == TableMain && l.unconditional() && l.MinPrefixLen == 0 && l.Priority > 0 {
			return l.Priority, fmt.Sprintf("before rule %d (table main)", l.Priority)
		}
	}
	return lastPriority + 1, fmt.Sprintf("no rule for table main; before where it usually is (%d)", lastPriority+1)
}

// firstSteering returns the claim of the earliest rule that steers an address of ours; of those of one
// rule, the shortest and lowest prefix. Another Culvert connection's claim on our virtual addresses is
// none: it would come before us for the same reason, again and again. Two that connect at the same time
// can take the same ones.
func (s *sweep) firstSteering(claims []claim) (claim, bool) {
	var first claim
	found := false
	routed := s.routed()
	for _, c := range claims { // in the order of the rules
		if found && c.rule != first.rule {
			break
		}
		ours := routed
		if s.v.route(c.route).Protocol == ProtocolCulvert {
			ours = s.tunnel
		}
		if (!found || s.v.before(c, first)) && ours.overlaps(c.prefix) {
			first, found = c, true
		}
	}
	return first, found
}

func (v *view) before(a, b claim) bool {
	if c := comparePrefix(a.prefix, b.prefix); c != 0 {
		return c < 0
	}
	return v.compareClaims(a, b) < 0
}

// steers is the reason to come before a claim's rule.
func (v *view) steers(f Family, c claim) string {
	if c.named.Bits() == 0 {
		return fmt.Sprintf("before rule %d, whose default route %s would take ours", c.rule, v.where(c))
	}
	return fmt.Sprintf("before rule %d, whose route %s %s would take some of ours", c.rule, c.named, v.where(c))
}

// priorities returns those that rules of other programs have. Another Culvert connection may share one with
// us: where both claim an address the rule that is to win comes before anyway, and two that look for a free
// priority at the same time would find the same one, again and again.
func (v *view) priorities(f Family) map[uint32]bool {
	used := map[uint32]bool{}
	for _, r := range v.all[f] {
		if r.Protocol != ProtocolCulvert {
			used[r.Priority] = true
		}
	}
	return used
}

// firstFree returns the earliest priority behind the local table's (0) that no rule has.
func (v *view) firstFree(f Family) uint32 {
	used := v.priorities(f)
	free := uint32(1)
	for used[free] {
		free++
	}
	return free
}

// skipMarks returns the marks that other programs keep their own packets out of their routes with:
// those of "not fwmark" rules wherever they are, and of "fwmark" rules behind ours. Rules of another
// Culvert connection have their marks from the same place and would keep them alive when it is gone.
func (v *view) skipMarks(f Family, ours uint32) []Mark {
	var out []Mark
	for _, r := range v.all[f] {
		m := Mark{r.Mark.Value & r.Mark.Mask, r.Mark.Mask}
		if m.Value != 0 && (r.Invert || r.Priority > ours) && r.Protocol != ProtocolCulvert {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Mark) int {
		if a.Value != b.Value {
			return int(int64(a.Value) - int64(b.Value))
		}
		return int(int64(a.Mask) - int64(b.Mask))
	})
	return slices.Compact(out)
}

// has reports whether s holds addresses of the family.
func (s rangeSet) has(f Family) bool {
	if f == IPv6 {
		return s.overlaps(all6)
	}
	return s.overlaps(all4)
}
