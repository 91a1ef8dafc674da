package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	wire "github.com/miekg/dns"

	"github.com/culvert-dev/culvert/policy"
)

// outward is what stands between an answer of the cluster as it is remembered, with real addresses, and as clients get
// it. It depends on the configuration only; the answers of others pass.
type outward struct {
	hidden   prefixMap[netip.Prefix]
	twins    prefixMap[Twin]
	withheld prefixMap[Withheld]
	agents   prefixMap[agentSubnet]
	pool     Pool
}

// newOutward returns the rules of a normalized configuration.
func newOutward(cfg *Config, pool Pool) *outward {
	hidden := slices.Clone(cfg.Hidden)
	for _, a := range cfg.Agents {
		hidden = append(hidden, a.Subnets...) // packets find the way to an agent by virtual addresses only
	}
	return &outward{
		hidden:   newPrefixMap(hidden, func(p netip.Prefix) netip.Prefix { return p }),
		twins:    newPrefixMap(cfg.Twins, func(t Twin) netip.Prefix { return t.Real }),
		withheld: newWithheldMap(cfg.Withheld),
		agents:   newAgentMap(cfg.Agents),
		pool:     pool,
	}
}

// sameOutward reports whether clients get the same of every answer under both configurations.
func (c *Config) sameOutward(o *Config) bool {
	return slices.Equal(c.Hidden, o.Hidden) && slices.Equal(c.Twins, o.Twins) && slices.Equal(c.Withheld, o.Withheld) &&
		sameAgents(c, o, (*Agent).sameSubnets)
}

// shown is what clients get of an answer in which something is hidden or withheld. An answer remembers it, so that it
// is made once and not for every reply.
type shown struct {
	by     *outward
	given  []netip.Addr // by the answer's addresses: what stands in place of each; not valid for one taken out
	leased bool         // some depend on the pool
	out    *answer

	virtual, withheld, noLease bool // what became of some address
}

var (
	errWithheld = errors.New("left to another network")
	errForeign  = errors.New("not an address of a cluster")
	errAstray   = errors.New("not reached through the workload that named it")
)

// real reports whether the cluster may name addr whatever it means elsewhere: a virtual address can stand for it.
func (o *outward) real(addr netip.Addr) bool {
	return o.twins.contains(addr) || o.agents.contains(addr)
}

// astray reports whether addr, one of a, was named by an agent alone that is not the way to it.
func (o *outward) astray(a *answer, addr netip.Addr) bool {
	if a.source != SourceAgent {
		return false
	}
	subnet, ok := o.agents.find(addr)
	return !ok || subnet.workload != a.agents[0]
}

// touches reports whether clients get anything else than a itself.
func (o *outward) touches(a *answer) bool {
	if len(a.excused) > 0 || a.source == SourceAgent && len(a.addrs) > 0 {
		return true
	}
	return !(o.hidden.empty() && o.withheld.empty()) && slices.ContainsFunc(a.addrs, func(addr netip.Addr) bool {
		return o.hidden.contains(addr) || o.withheld.contains(addr)
	})
}

// give returns the address that clients get in place of addr, one of a. Leases are renewed. If they get none the error
// says why: errWithheld, errForeign, errAstray, or else that nothing stands for the hidden address.
func (o *outward) give(a *answer, addr netip.Addr) (netip.Addr, error) {
	if o.astray(a, addr) {
		return netip.Addr{}, errAstray
	}
	hidden := o.hidden.contains(addr)
	if twin, ok := o.twins.find(addr); hidden && ok {
		if twin.Pooled {
			return lease(o.pool, addr, a.name)
		}
		return policy.Transplant(addr, twin.Virtual), nil
	}
	switch {
	case o.withheld.contains(addr):
		return netip.Addr{}, errWithheld
	case hidden:
		return netip.Addr{}, errNoTwin
	case slices.Contains(a.excused, addr):
		return netip.Addr{}, errForeign
	}
	return addr, nil
}

// show returns what clients get of a, or nil if that is a itself. It allocates only if that was not known before.
func (o *outward) show(q *query, a *answer) *shown {
	if s := a.shown.Load(); s != nil && s.by == o {
		if o.holds(s, a) {
			return s
		}
	} else if !o.touches(a) {
		return nil
	}
	s := o.dress(q, a)
	a.shown.Store(s)
	return s
}

// told returns the answer that the client that asked q gets of a.
func (o *outward) told(q *query, a *answer) *answer {
	if s := o.show(q, a); s != nil {
		return s.out
	}
	return a
}

// holds renews the leases that s gives, and reports whether they are still the same.
func (o *outward) holds(s *shown, a *answer) bool {
	if !s.leased {
		return true
	}
	same := true
	for i, addr := range a.addrs {
		vip, _ := o.give(a, addr)
		same = same && vip == s.given[i]
	}
	return same
}

// dress finds out what clients get of a, in the words of the one that asked q.
func (o *outward) dress(q *query, a *answer) *shown {
	s := &shown{by: o, given: make([]netip.Addr, len(a.addrs))}
	instead := make(map[netip.Addr]netip.Addr, len(a.addrs))
	var losses []loss
	for i, addr := range a.addrs {
		vip, err := o.give(a, addr)
		s.given[i], instead[addr] = vip, vip
		twin, _ := o.twins.find(addr)
		s.leased = s.leased || twin.Pooled && o.hidden.contains(addr)
		s.virtual = s.virtual || err == nil && vip != addr
		if err != nil {
			losses = addLoss(losses, o.loss(q, a, addr, err))
			s.withheld = s.withheld || err == errWithheld
			s.noLease = s.noLease || err != errWithheld && err != errForeign && err != errAstray
		}
	}
	out, err := readdress(q, a, losses, func(addr netip.Addr) netip.Addr { return instead[addr] })
	if err != nil {
		// Not even an answer that cannot be taken apart gives an address away.
		out = failure(wire.RcodeServerFailure, wire.ExtendedErrorCodeOther, clip(err.Error()))
	}
	out.source = a.source
	s.out = out
	return s
}

// loss is why an answer has lost addresses, as an extended error (RFC 8914).
type loss struct {
	code uint16
	text string
}

// addLoss adds l unless something like it was lost before.
func addLoss(losses []loss, l loss) []loss {
	if slices.ContainsFunc(losses, func(o loss) bool { return o.code == l.code }) {
		return losses
	}
	return append(losses, l)
}

// loss explains why clients do not get addr, one of a: err, as give returned it.
func (o *outward) loss(q *query, a *answer, addr netip.Addr, err error) loss {
	switch err {
	case errWithheld:
		w, _ := o.withheld.find(addr)
		return loss{codeWithheld, w.explain(addr, q)}
	case errForeign:
		return foreignLoss(addr)
	case errAstray:
		text := fmt.Sprintf("the agent in %s named %s, which is not reached through it", a.agents[0], addr)
		return loss{wire.ExtendedErrorCodeBlocked, clip(text)}
	}
	const advice = "; see `culvert status` and cluster.virtualIPSubnet"
	return loss{wire.ExtendedErrorCodeOther, clipTo(err.Error(), clipBytes-len(advice)) + advice}
}

// foreignLoss explains that addr was taken out because it is no address of a cluster.
func foreignLoss(addr netip.Addr) loss {
	text := fmt.Sprintf("the cluster named %s, which cannot be one of its addresses", addr)
	return loss{wire.ExtendedErrorCodeBlocked, clip(text)}
}

// readdress returns a with instead(addr) in place of each address, or without it if that is not valid, and with losses
// as the reasons. If those lost were all there was of what q asks for, that is a failure: the name exists, so it must
// not be denied.
func readdress(q *query, a *answer, losses []loss, instead func(netip.Addr) netip.Addr) (*answer, error) {
	m := new(wire.Msg)
	if err := m.Unpack(appendRecords(nil, q, a)); err != nil {
		return nil, fmt.Errorf("change addresses: %w", err)
	}
	before := answers(m, q.qtype)
	changeAddresses(m, instead)
	if before && !answers(m, q.qtype) {
		out := failure(wire.RcodeServerFailure, 0, "")
		out.explain(losses)
		return out, nil
	}
	m.Compress = true
	msg, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("change addresses: %w", err)
	}
	out, err := parseAnswer(msg, q.end, lifetimes{}, a.born)
	if err != nil {
		return nil, fmt.Errorf("change addresses: %w", err)
	}
	out.opt, out.ownOPT = a.opt, a.ownOPT
	out.explain(losses)
	return out, nil
}

// explain adds losses to what the OPT record of a says. That of another server, which is about its own message, gives
// way.
func (a *answer) explain(losses []loss) {
	if len(losses) == 0 {
		return
	}
	if !a.ownOPT {
		a.opt, a.ownOPT = appendOPT(nil, rcodeHigh(a.opt), 0, ""), true
	}
	a.opt = slices.Clone(a.opt)
	for _, l := range losses {
		a.opt = appendExtendedError(a.opt, 0, l.code, l.text)
	}
}

// answers reports whether the answer section of m holds what a question of qtype is about, beyond the aliases that
// lead there.
func answers(m *wire.Msg, qtype uint16) bool {
	return slices.ContainsFunc(m.Answer, func(rr wire.RR) bool {
		rtype := rr.Header().Rrtype
		return rtype == qtype || qtype == wire.TypeANY && rtype != wire.TypeCNAME && !dnssec(rr)
	})
}
