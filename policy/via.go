package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// Via is a workload in one of whose pods an agent reaches subnets: one more WireGuard peer beside the
// gateway.
type Via struct {
	// Workload is in the normal form of [Workload], and never the gateway.
	Workload string `json:"workload"`
	// Twins are what the agent is told: those of [Plan.Twins] that this workload has, with a virtual prefix
	// each; where an agent has no room for them, the undivided ones around. There is at least one, and an
	// agent has room for all of them.
	Twins []Twin `json:"twins"`
	// AllowedIPs are the destinations on the wire, as few prefixes as possible: the virtual addresses that
	// this workload has. No other peer has one of them.
	AllowedIPs []netip.Prefix `json:"allowedIPs"`
}

// viasOf returns the workloads that twins are reached by, sorted. undivided are what the twins are parts of.
func viasOf(twins, undivided []Twin) []Via {
	byWorkload := map[string][]Twin{}
	for _, t := range twins {
		if t.Via != "" && t.Virtual.IsValid() {
			byWorkload[t.Via] = append(byWorkload[t.Via], t)
		}
	}
	var out []Via
	for workload, its := range byWorkload {
		allowed := rangesOf(virtualPrefixes(its)...)
		if len(its) > maxTwins {
			its = slices.DeleteFunc(slices.Clone(undivided), func(t Twin) bool {
				return !t.Virtual.IsValid() || !allowed.overlaps(t.Virtual)
			})
		}
		out = append(out, Via{workload, its, allowed.prefixes()})
	}
	slices.SortFunc(out, func(a, b Via) int { return strings.Compare(a.Workload, b.Workload) })
	return out
}

func virtualPrefixes(twins []Twin) []netip.Prefix {
	out := make([]netip.Prefix, len(twins))
	for i, t := range twins {
		out[i] = t.Virtual
	}
	return out
}

// allowedVia returns what a workload's agent is sent; nil if that is nothing.
func (p Plan) allowedVia(workload string) []netip.Prefix {
	for _, v := range p.Vias {
		if v.Workload == workload {
			return v.AllowedIPs
		}
	}
	return nil
}

// agent is the workload whose agent a [ResolveVia] means; "" for the gateway.
func (r RoutingRule) agent() string {
	if r.Via == WorkloadGateway {
		return ""
	}
	return r.Via
}

// way says how a [ResolveVia] has its addresses reached.
func (r RoutingRule) way() string {
	if workload := r.agent(); workload != "" {
		return throughAgent(workload)
	}
	return "by way of the " + WorkloadGateway
}

func throughAgent(workload string) string { return "through the agent in " + workload }

// agentNote is what is added to a sentence about t: ", through the agent in echo", or "".
func (t Twin) agentNote() string {
	if t.Via == "" {
		return ""
	}
	return ", " + throughAgent(t.Via)
}

// loopbacks are the addresses by which a host, or a pod, reaches itself.
var loopbacks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// noLoopback is why the gateway reaches no loopback: its own pod's is nobody's business.
const noLoopback = "the gateway has no loopback to offer"

// isLoopback reports whether p has loopback addresses only. They may be reached through agents.
func isLoopback(p netip.Prefix) bool {
	return slices.ContainsFunc(loopbacks, func(l netip.Prefix) bool { return covers(l, p) })
}

// border is a prefix whose addresses are reached in one way, where no smaller border is around them.
type border struct {
	prefix netip.Prefix
	via    string // see Twin.Via
}

func (b border) around() netip.Prefix { return b.prefix }

// borders are sorted, one to a prefix, and none says what the next one around it says.
type borders []border

// bordersOf returns where the way changes: at the prefixes of proxyVia, and where an also-proxied prefix
// within one of them is reached by its own addresses. The rules are expanded; see expanded.
func bordersOf(rules []RoutingRule, wants []want) borders {
	var all borders
	for _, w := range wants {
		if w.kind == KindAlso && !w.hidden {
			all = append(all, border{prefix: w.prefix})
		}
	}
	for _, r := range rules { // of one prefix the last counts, as in a sweep
		if r.Resolve == ResolveVia {
			all = append(all, border{r.Prefix, r.agent()})
		}
	}
	slices.SortStableFunc(all, func(a, b border) int { return comparePrefix(a.prefix, b.prefix) })
	var out, stack borders
	for i, b := range all {
		if i+1 < len(all) && all[i+1].prefix == b.prefix {
			continue
		}
		for n := len(stack); n > 0 && !covers(stack[n-1].prefix, b.prefix); n-- {
			stack = stack[:n-1]
		}
		if stack.innermost() != b.via {
			out, stack = append(out, b), append(stack, b)
		}
	}
	return out
}

// innermost is the way within the last of borders that lie in one another.
func (b borders) innermost() string {
	if len(b) == 0 {
		return ""
	}
	return b[len(b)-1].via
}

// divide returns twins in parts that are reached in one way each, and those of them that the gateway has to
// know, undivided: parts of one twin may be too many for a Peer. All are sorted as the given ones are; wants
// are what those stand for.
func (b borders) divide(twins []Twin, wants []want) (parts, gateways []Twin) {
	for _, t := range twins {
		its := b.partsOf(t, wants)
		parts = append(parts, its...)
		if slices.ContainsFunc(its, func(x Twin) bool { return x.Via == "" && x.Virtual.IsValid() }) {
			gateways = append(gateways, t)
		}
	}
	return parts, gateways
}

// partsOf returns the parts of one twin. One that stands for several wants and what lies between is not
// divided if they are all reached in the same way.
func (b borders) partsOf(t Twin, wants []want) []Twin {
	if i := smallestAround(b, t.Real); i >= 0 {
		t.Via = b[i].via
	}
	if len(strictlyInside(b, t.Real)) == 0 {
		return []Twin{t.reachable()}
	}
	if via, one := b.oneWay(t.Real, wants); one {
		t.Via = via
		return []Twin{t.reachable()}
	}
	return b.parts(t)
}

// oneWay reports whether all wants that lie in p, of which there has to be one, are reached in the same way,
// and which.
func (b borders) oneWay(p netip.Prefix, wants []want) (via string, ok bool) {
	for _, w := range wants {
		switch {
		case covers(w.prefix, p):
			return "", false
		case !covers(p, w.prefix):
			continue
		}
		its := ""
		if i := smallestAround(b, w.prefix); i >= 0 {
			its = b[i].via
		}
		if ok && its != via || len(strictlyInside(b, w.prefix)) > 0 {
			return "", false
		}
		via, ok = its, true
	}
	return via, ok
}

// parts returns the parts of t, sorted, where t.Via is the way to all that lies in no border within.
func (b borders) parts(t Twin) []Twin {
	var out []Twin
	rest := inParts(t.Real, strictlyInside(b, t.Real), func(inner border) {
		out = append(out, b.parts(t.part(inner.prefix, inner.via))...)
	})
	for _, p := range rest {
		out = append(out, t.part(p, t.Via).reachable())
	}
	slices.SortFunc(out, func(x, y Twin) int { return comparePrefix(x.Real, y.Real) })
	return out
}

// part returns the part of t for p, which lies in t.Real, reached via a workload.
func (t Twin) part(p netip.Prefix, via string) Twin {
	if t.Virtual.IsValid() {
		t.Virtual = transplant(p, t.Virtual)
	}
	t.Real, t.Via = p, via
	return t
}

// reachable returns t, without a virtual prefix if the gateway has nothing to offer there.
func (t Twin) reachable() Twin {
	if t.Via == "" && isLoopback(t.Real) {
		t.Virtual, t.Pooled, t.Reason = netip.Prefix{}, false, noLoopback
	}
	return t
}
