package policy

import "net/netip"

// live is a rule that steers at least some ordinary packets: sent by a program of this host, without
// a mark, not bound to an interface or a source address.
type live struct {
	Rule
	dst     netip.Prefix // only these destinations; invalid means all
	outside bool         // the destinations outside dst instead
}

// liveRules walks the rules of one family in order. Rules that an unconditional goto leaps over are
// dead.
func liveRules(rules []Rule) []live {
	var out []live
	for i := 0; i < len(rules); i++ {
		r := rules[i]
		l, ok := liven(r)
		if !ok {
			continue
		}
		if r.Action == ActionGoto {
			if l.unconditional() {
				for i+1 < len(rules) && rules[i+1].Priority < r.Goto {
					i++
				}
			}
			continue
		}
		if r.Action != ActionNop && !r.L3MDev {
			out = append(out, l)
		}
	}
	return out
}

// liven says which ordinary packets a rule catches, if any. Where that depends on more than the
// destination (user, protocol, ports), it counts as catching them all: better one conflict too many
// than a packet gone astray.
func liven(r Rule) (live, bool) {
	l := live{Rule: r, dst: r.Dst}
	mismatch := r.Mark.Mask != 0 && r.Mark.Value&r.Mark.Mask != 0 || // ordinary packets carry no mark
		r.IIF != "" && r.IIF != "lo" || r.OIF != "" ||
		r.Src.IsValid() && r.Src.Bits() > 0
	sometimes := r.UIDs != nil || r.Partial
	switch {
	case !r.Invert:
		return l, !mismatch
	case mismatch || sometimes:
		l.dst = netip.Prefix{} // "not" of what never or not always matches: everything
		return l, true
	case r.Dst.IsValid():
		l.outside = true
		return l, true
	}
	return l, false // "not" of everything
}

// unconditional reports whether the rule catches every ordinary packet for sure.
func (l *live) unconditional() bool { return !l.dst.IsValid() && l.UIDs == nil && !l.Partial }

// limit returns the part of p that the rule steers.
func (l *live) limit(p netip.Prefix) (netip.Prefix, bool) {
	switch {
	case !l.dst.IsValid():
		return p, true
	case l.outside:
		return p, !covers(l.dst, p)
	case covers(l.dst, p):
		return p, true
	case covers(p, l.dst):
		return l.dst, true
	}
	return p, false
}
