package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// host reads facts from lines like those that ip(8) prints, so that a test row looks like the host
// it stands for:
//
//	link eth0 veth 192.168.7.2/24          (kind "-" is a physical device; add "p2p", "lo" as flags)
//	default via 192.168.7.1 dev eth0
//	10.0.0.0/8 dev tun0 table 51820 metric 50 proto kernel
//	blackhole 10.66.0.0/16
//	rule 32765: not fwmark 0xca6c lookup 51820
//	rule6 5270: to fd00::/8 lookup 52
//	link red vrf table 88
//	link eth1 - 10.0.0.1/24 master red
//	ipsec protect 10.0.0.0/8 from 10.9.0.2 priority 5 peer 203.0.113.9
//
// The default rules are always there.
func host(t testing.TB, text string) Facts {
	t.Helper()
	h := hostParser{t: t, facts: Facts{Rules: DefaultRules()}}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if h.words = strings.Fields(line); len(h.words) > 0 {
			h.line()
		}
	}
	return h.facts
}

type hostParser struct {
	t     testing.TB
	facts Facts
	words []string
}

// word takes the next word of the line; "" at its end.
func (h *hostParser) word() string {
	if len(h.words) == 0 {
		return ""
	}
	w := h.words[0]
	h.words = h.words[1:]
	return w
}

func (h *hostParser) line() {
	switch first := h.word(); first {
	case "link":
		h.link()
	case "rule":
		h.rule(IPv4)
	case "rule6":
		h.rule(IPv6)
	case "ipsec":
		h.ipsec(IPsecAction(h.word()), h.word())
	case "blackhole", "unreachable", "prohibit", "throw", "local", "broadcast":
		h.route(RouteType(first), h.word())
	default:
		h.route(Unicast, first)
	}
}

func (h *hostParser) number(s string) uint32 {
	h.t.Helper()
	names := map[string]string{"main": "254", "local": "255", "default": "253", "kernel": "2", "link": "253"}
	if n, ok := names[s]; ok {
		s = n
	}
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		h.t.Fatalf("test host: %v", err)
	}
	return uint32(n)
}

func (h *hostParser) link() {
	l := Link{Index: len(h.facts.Links) + 1, Name: h.word(), Kind: strings.TrimPrefix(h.word(), "-"), Up: true, MTU: 1500}
	for w := h.word(); w != ""; w = h.word() {
		switch w {
		case "p2p":
			l.PointToPoint = true
		case "lo":
			l.Loopback = true
		case "table":
			l.VRFTable = h.number(h.word())
		case "master":
			l.Master = h.linkIndex(h.word())
		default:
			l.Addresses = append(l.Addresses, netip.MustParsePrefix(w))
		}
	}
	h.facts.Links = append(h.facts.Links, l)
}

func (h *hostParser) linkIndex(name string) int {
	for _, l := range h.facts.Links {
		if l.Name == name {
			return l.Index
		}
	}
	h.t.Fatalf("test host: no link %s", name)
	return 0
}

func (h *hostParser) prefix(s string) netip.Prefix {
	switch {
	case s == "default":
		return all4
	case s == "default6":
		return all6
	case !strings.Contains(s, "/"):
		return hostPrefix(netip.MustParseAddr(s))
	}
	return netip.MustParsePrefix(s)
}

func (h *hostParser) route(kind RouteType, prefix string) {
	r := Route{Prefix: h.prefix(prefix), Type: kind, Table: TableMain, Protocol: 3}
	if kind == Local || kind == Broadcast {
		r.Table = TableLocal
	}
	var hop NextHop
	done := func() {
		if hop != (NextHop{}) {
			r.NextHops = append(r.NextHops, hop)
		}
		hop = NextHop{}
	}
	for w := h.word(); w != ""; w = h.word() {
		switch w {
		case "via":
			hop.Addr = netip.MustParseAddr(h.word())
		case "dev":
			hop.Link = h.linkIndex(h.word())
		case "nexthop":
			done()
		case "table":
			r.Table = h.number(h.word())
		case "metric":
			r.Metric = h.number(h.word())
		case "proto":
			r.Protocol = uint8(h.number(h.word()))
		case "scope":
			r.Scope = uint8(h.number(h.word()))
		case "tos":
			r.TOS = uint8(h.number(h.word()))
		default:
			h.t.Fatalf("test host: route: unknown word %q", w)
		}
	}
	done()
	h.facts.Routes = append(h.facts.Routes, r)
}

func (h *hostParser) ipsec(action IPsecAction, dst string) {
	p := IPsecPolicy{Dst: h.prefix(dst), Src: all4, Action: action}
	if p.Dst.Addr().Is6() {
		p.Src = all6
	}
	for w := h.word(); w != ""; w = h.word() {
		switch w {
		case "from":
			p.Src = h.prefix(h.word())
		case "priority":
			p.Priority = h.number(h.word())
		case "peer":
			p.Peer = netip.MustParseAddr(h.word())
		case "if_id":
			p.IfID = h.number(h.word())
		case "fwmark":
			p.Mark = Mark{h.number(h.word()), ^uint32(0)}
		case "dev":
			p.Link = h.linkIndex(h.word())
		case "partial":
			p.Partial = true
		default:
			h.t.Fatalf("test host: ipsec: unknown word %q", w)
		}
	}
	h.facts.IPsec = append(h.facts.IPsec, p)
}

func (h *hostParser) rule(f Family) {
	r := Rule{Family: f, Priority: h.number(strings.TrimSuffix(h.word(), ":"))}
	for w := h.word(); w != ""; w = h.word() {
		switch w {
		case "not":
			r.Invert = true
		case "from":
			if w := h.word(); w != "all" {
				r.Src = h.prefix(w)
			}
		case "to":
			r.Dst = h.prefix(h.word())
		case "fwmark":
			value, mask, masked := strings.Cut(h.word(), "/")
			r.Mark = Mark{h.number(value), ^uint32(0)}
			if masked {
				r.Mark.Mask = h.number(mask)
			}
		case "iif":
			r.IIF = h.word()
		case "oif":
			r.OIF = h.word()
		case "uidrange":
			first, last, _ := strings.Cut(h.word(), "-")
			r.UIDs = &UIDRange{h.number(first), h.number(last)}
		case "lookup":
			r.Table = h.number(h.word())
		case "suppress_prefixlength":
			r.MinPrefixLen = int(h.number(h.word())) + 1
		case "goto":
			r.Action, r.Goto = ActionGoto, h.number(h.word())
		case "proto":
			r.Protocol = uint8(h.number(h.word()))
		case "l3mdev":
			r.L3MDev = true
		case "partial":
			r.Partial = true
		case "unreachable", "blackhole", "prohibit", "nop":
			r.Action = RuleAction(w)
		default:
			h.t.Fatalf("test host: rule: unknown word %q", w)
		}
	}
	h.facts.Rules = append(h.facts.Rules, r)
}

// settings makes merged settings of flags as a user would give them.
func settings(t testing.TB, flags ...string) Settings {
	t.Helper()
	var values []Value
	for _, f := range flags {
		name, text, _ := strings.Cut(strings.TrimPrefix(f, "--"), "=")
		for _, k := range Keys() {
			if k.Flag == name {
				values = append(values, Value{k.Path, text, "--" + name})
			}
		}
	}
	l, err := Values(SourceFlag, values...)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := Merge(l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// cluster makes a cluster of one service prefix and pod prefixes; "" means none.
func cluster(services string, pods ...string) Cluster {
	c := Cluster{UID: "uid", Domain: DefaultDomain}
	if services != "" {
		c.Services = []Subnet{{netip.MustParsePrefix(services), "test"}}
	}
	for _, p := range pods {
		c.Pods = append(c.Pods, Subnet{netip.MustParsePrefix(p), "test"})
	}
	return c
}

// withRules adds rules to settings.
func withRules(s Settings, rules ...RoutingRule) Settings {
	s.Routing = append(slices.Clone(s.Routing), rules...)
	return s
}

// via makes a rule of a proxyVia that no setting could, or that is refused beside another.
func via(subnet string) RoutingRule {
	return viaWorkload(subnet, WorkloadGateway)
}

// viaWorkload is its like for any workload.
func viaWorkload(subnet, workload string) RoutingRule {
	return viaRule(subnet+"="+workload, Origin{SourceFlag, Position{Name: "--proxy-via"}})
}
