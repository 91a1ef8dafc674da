package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
)

// Text is what a person reads of an explanation: a line per fact.
func (e Explanation) Text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "%s  %s: %s\n", e.Addr, outcomeWords[e.Outcome], e.Reason)
	if e.Subnet.IsValid() {
		row("subnet", "%s (%s)", e.Subnet, e.Kind)
	}
	switch {
	case e.Real.IsValid():
		row("stands for", "%s", e.Real)
	case e.Twin.IsValid() && e.Pooled:
		row("virtual IP", "leased from %s when a name leads to it (%s on the wire)", e.Pool, e.Twin)
	case e.Twin.IsValid():
		row("virtual IP", "%s", e.Twin)
	case e.Pooled:
		row("stands for", "what the pool %s leases it to", e.Pool)
	}
	if e.Via != "" {
		row("reached", "%s", throughAgent(e.Via))
	}
	if e.Route.Prefix.IsValid() {
		row("our route", "%s %s", e.Route.Prefix, routeVerbs[e.Route.Kind])
	}
	if e.Rule.Priority > 0 {
		row("our rule", "priority %d, %s", e.Rule.Priority, e.Rule.why())
	}
	for _, c := range e.Claims {
		row("claimed by", "%s", c)
	}
	if e.Host != nil {
		row("without us", "%s", *e.Host)
	} else {
		row("without us", "no route")
	}
	w.Flush()
	return b.String()
}

var outcomeWords = map[Outcome]string{
	OutcomeTunnel:    "goes through the tunnel",
	OutcomeOutside:   "goes its way outside the tunnel",
	OutcomeProtected: "keeps its way",
	OutcomeNever:     "keeps its way",
	OutcomeLAN:       "keeps its way",
	OutcomeYielded:   "is left to another network",
	OutcomeOpen:      "is left to another network, for want of a setting",
	OutcomeVirtual:   "is reached by a virtual address",
}

// String names the route: "10.0.0.0/8 via 10.8.0.1 on tun0 (OpenVPN, table main), rule 32766".
func (c Claim) String() string {
	text := c.Prefix.String()
	if len(c.NextHops) > 0 && !isIPsec(c.Type) {
		text += " via " + joinAddrs(c.NextHops)
	}
	text += " " + c.where()
	if c.Table != 0 {
		text += fmt.Sprintf(", rule %d", c.Rule)
	}
	return text
}

func joinAddrs(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}
