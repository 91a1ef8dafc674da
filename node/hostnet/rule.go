package hostnet

import (
	"math/bits"
)

// Rule is a policy rule that leads to our table.
type Rule struct {
	IPv6     bool
	Priority int
	// Mark selects packets; the zero Mark selects all.
	Mark Mark
	// Not selects the packets that do not carry Mark instead.
	Not bool
}

// newRule returns the rule that leads all packets but those with one of the marks to our table. It is
// one rule however many there are: rules are tried until one of them matches, so several of ours with
// a mark each would let in what any of them does not know, and a goto around ours needs further
// priorities next to it that nobody else may have.
//
// A single mark is left out exactly. Of several, each gets one bit, and the rule takes packets that
// have none of these bits, as nearly all packets are without any mark. What a third program marks
// with such a bit keeps the way it has without us. The bit is the highest, because marks given by
// hand are small numbers. A mark without a bit cannot be told from none and is passed over.
func newRule(ipv6 bool, priority int, skip []Mark) Rule {
	rule := Rule{IPv6: ipv6, Priority: priority}
	var marks []Mark
	for _, m := range skip {
		if m.Value &= m.Mask; m.Value != 0 {
			marks = append(marks, m)
		}
	}
	if len(marks) == 1 {
		rule.Mark, rule.Not = marks[0], true
		return rule
	}
	for _, m := range marks {
		if m.Value&rule.Mark.Mask == 0 {
			rule.Mark.Mask |= 1 << (bits.Len32(m.Value) - 1)
		}
	}
	return rule
}

// selector returns which packets the rule is for, as ip rule shows it.
func (r Rule) selector() string {
	switch {
	case r.Mark.IsZero():
		return "from all"
	case r.Not:
		return "not from all fwmark " + r.Mark.String()
	}
	return "from all fwmark " + r.Mark.String()
}
