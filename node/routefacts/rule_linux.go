package routefacts

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// fibRuleInvert is FIB_RULE_INVERT of linux/fib_rules.h: the selectors are turned round ("not").
const fibRuleInvert = 0x2

var ruleActions = map[uint8]policy.RuleAction{
	unix.FR_ACT_TO_TBL:      policy.ActionLookup,
	unix.FR_ACT_GOTO:        policy.ActionGoto,
	unix.FR_ACT_NOP:         policy.ActionNop,
	unix.FR_ACT_BLACKHOLE:   policy.ActionBlackhole,
	unix.FR_ACT_UNREACHABLE: policy.ActionUnreachable,
	unix.FR_ACT_PROHIBIT:    policy.ActionProhibit,
}

// decodeRule reads an RTM_NEWRULE message (struct fib_rule_hdr, which is laid out like rtmsg).
func decodeRule(m []byte) (policy.Rule, error) {
	fixed, rest, err := header(m, unix.SizeofRtMsg)
	if err != nil {
		return policy.Rule{}, err
	}
	d := ruleDecoder{}
	d.rule.Table = uint32(fixed[4])
	d.rule.Partial = fixed[3] != 0 // a TOS
	d.rule.Invert = native.Uint32(fixed[8:])&fibRuleInvert != 0
	switch fixed[0] {
	case unix.AF_INET:
		d.rule.Family = policy.IPv4
	case unix.AF_INET6:
		d.rule.Family = policy.IPv6
	default:
		return policy.Rule{}, fmt.Errorf("a rule of address family %d", fixed[0])
	}
	var known bool
	if d.rule.Action, known = ruleActions[fixed[7]]; !known {
		return policy.Rule{}, fmt.Errorf("a rule with unknown action %d", fixed[7])
	}
	if err := attributes(rest, d.attribute); err != nil {
		return policy.Rule{}, err
	}
	return d.finish(fixed[1], fixed[2], fixed[0])
}

// ruleDecoder gathers the attributes of one rule.
type ruleDecoder struct {
	rule     policy.Rule
	dst, src netip.Addr
}

// finish adds the prefixes, whose lengths are in the header.
func (d *ruleDecoder) finish(dstBits, srcBits, family uint8) (r policy.Rule, err error) {
	if dstBits > 0 {
		if d.rule.Dst, err = prefixOf(d.dst, dstBits, family); err != nil {
			return policy.Rule{}, err
		}
	}
	if srcBits > 0 {
		if d.rule.Src, err = prefixOf(d.src, srcBits, family); err != nil {
			return policy.Rule{}, err
		}
	}
	return d.rule, nil
}

func (d *ruleDecoder) attribute(kind uint16, value []byte) (err error) {
	r := &d.rule
	switch kind {
	case unix.FRA_DST:
		d.dst, err = addrOf(value)
	case unix.FRA_SRC:
		d.src, err = addrOf(value)
	case unix.FRA_TABLE:
		r.Table, err = uint32Of(value)
	case unix.FRA_PRIORITY:
		r.Priority, err = uint32Of(value)
	case unix.FRA_GOTO:
		r.Goto, err = uint32Of(value)
	case unix.FRA_FWMARK:
		r.Mark.Value, err = uint32Of(value)
	case unix.FRA_FWMASK:
		r.Mark.Mask, err = uint32Of(value)
	case unix.FRA_IIFNAME:
		r.IIF = text(value)
	case unix.FRA_OIFNAME:
		r.OIF = text(value)
	case unix.FRA_SUPPRESS_PREFIXLEN:
		var n uint32
		if n, err = uint32Of(value); n != ^uint32(0) { // -1 means none
			r.MinPrefixLen = int(min(n, 128)) + 1
		}
	case unix.FRA_PROTOCOL, unix.FRA_L3MDEV:
		err = d.byteAttribute(kind, value)
	case unix.FRA_UID_RANGE:
		if len(value) < 8 {
			return fmt.Errorf("a range of users in %d bytes", len(value))
		}
		r.UIDs = &policy.UIDRange{First: native.Uint32(value), Last: native.Uint32(value[4:])}
	case unix.FRA_FLOW, unix.FRA_SUPPRESS_IFGROUP, unix.FRA_PAD:
		// Realms steer nothing; what a group of interfaces suppresses is counted as if it were there.
	default:
		r.Partial = true // protocol, ports, tunnel id and what newer kernels add: selectors, all of them
	}
	return err
}

func (d *ruleDecoder) byteAttribute(kind uint16, value []byte) error {
	if len(value) < 1 {
		return fmt.Errorf("an empty attribute %d", kind)
	}
	if kind == unix.FRA_PROTOCOL {
		d.rule.Protocol = value[0]
	} else {
		d.rule.L3MDev = value[0] != 0
	}
	return nil
}
