package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

// Trace is how a program on this host that asks for a name fares. It consists of plain values that encode to JSON.
type Trace struct {
	// Name is the name as given.
	Name string `json:"name"`
	// Matched is the absolute name whose addresses the program gets; "" if it gets none.
	Matched string `json:"matched,omitempty"`
	// Addresses are what the program gets, IPv4 first. Of a name that is an address already it is that address.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Lookups are the absolute names asked for, in order. The last one matched, or none did. A name that is an
	// address already is not asked for.
	Lookups []Lookup `json:"lookups,omitempty"`
}

// Lookup is one absolute name that was asked for.
type Lookup struct {
	// Name is absolute.
	Name string `json:"name"`
	// SearchDomain is what the search list added to the name as given; "" if it was tried as it is.
	SearchDomain string `json:"searchDomain,omitempty"`
	// Source is who is asked: "cluster", "agent", "upstream" (the host's own resolvers) or "none"; Reason is why, for
	// people.
	Source string `json:"source"`
	Reason string `json:"reason"`
	// Workload is whose agent is asked, if Source is "agent".
	Workload string `json:"workload,omitempty"`
	// Asked is the name that the source is asked for, where it is another one.
	Asked string `json:"asked,omitempty"`
	// Fallback reports that the host's own resolvers are asked for what the cluster does not know.
	Fallback bool `json:"fallback,omitempty"`
	// Questions are those for A and AAAA records, in this order.
	Questions []Question `json:"questions"`
}

// Question is one question of a [Lookup] and its answer.
type Question struct {
	// Type is "A" or "AAAA".
	Type string `json:"type"`
	// AnsweredBy is "cluster", "agent", "upstream" or, if nobody was asked or could tell, "none".
	AnsweredBy string `json:"answeredBy"`
	// Agents are the workloads whose agents were asked: the one of an answer by "agent"; of one by "cluster" those that
	// are the way to its addresses.
	Agents []string `json:"agents,omitempty"`
	// Cached reports that the answer was remembered, as the one to a client that uses EDNS.
	Cached bool `json:"cached"`
	// Rcode and Errors are what a client gets; Errors only if it uses EDNS.
	Rcode  string          `json:"rcode"`
	Errors []ExtendedError `json:"errors,omitempty"`
	// Aliases are the names that the asked one stands for, in the order followed.
	Aliases []string `json:"aliases,omitempty"`
	// Given are the addresses that the source named, Addresses those that a client gets.
	Given     []netip.Addr `json:"given,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Withheld are the addresses given that a client does not get.
	Withheld []WithheldAddr `json:"withheld,omitempty"`
	// Virtual are the addresses given that a client gets another one for, or would.
	Virtual []VirtualAddr `json:"virtual,omitempty"`
	// TookMillis is the time until the answer was there, in milliseconds.
	TookMillis float64 `json:"tookMillis"`
}

// WithheldAddr is an address that was taken out of an answer of the cluster: see [Withheld].
type WithheldAddr struct {
	Addr   netip.Addr   `json:"addr"`
	Prefix netip.Prefix `json:"prefix"`
	Owner  string       `json:"owner"`
}

// VirtualAddr is an address of the cluster that another one stands for: see [Config.Hidden].
type VirtualAddr struct {
	Real netip.Addr `json:"real"`
	// VIP stands for Real. It is not valid if none was to be had; Error then says why.
	VIP   netip.Addr `json:"vip,omitzero"`
	Error string     `json:"error,omitempty"`
}

// ExtendedError explains a reply (RFC 8914).
type ExtendedError struct {
	Code    uint16 `json:"code"`
	Meaning string `json:"meaning,omitempty"` // of the code, as registered
	Text    string `json:"text,omitempty"`
}

// Withheld returns every address withheld on the way, each once, in the order met.
func (t Trace) Withheld() []WithheldAddr {
	var out []WithheldAddr
	for _, l := range t.Lookups {
		for _, q := range l.Questions {
			for _, w := range q.Withheld {
				if !slices.Contains(out, w) {
					out = append(out, w)
				}
			}
		}
	}
	return out
}

var errEnded = errors.New("the resolver has ended")

// Trace resolves name as the C library of this host would for a program that wants addresses: it follows the search
// list of the configuration (resolv.conf(5)) and asks for A and AAAA records with EDNS. The questions take the way of
// a client's, through the same memory, and are remembered like a client's. They are not counted among the queries.
//
// It may be called from any goroutine until Run returns. The error says that name is none, or that ctx or the server
// ended early; the trace then holds what was found until then. A name that does not resolve is no error.
func (s *Server) Trace(ctx context.Context, name string) (Trace, error) {
	t := Trace{Name: name}
	if addr, err := netip.ParseAddr(name); err == nil {
		t.Addresses = []netip.Addr{addr}
		return t, nil
	}
	if !s.hold() {
		return t, fmt.Errorf("look up %s: %w", name, errEnded)
	}
	defer s.work.Done()
	tries := s.state.Load().cfg.expand(name)
	if len(tries) == 0 {
		return t, fmt.Errorf("look up %q: not a domain name", name)
	}
	for _, l := range tries {
		err := s.lookUp(ctx, &l)
		t.Lookups = append(t.Lookups, l)
		if err != nil {
			return t, fmt.Errorf("look up %s: %w", l.Name, err)
		}
		for _, q := range l.Questions {
			t.Addresses = append(t.Addresses, q.Addresses...)
		}
		if len(t.Addresses) > 0 {
			t.Matched = l.Name
			break
		}
	}
	return t, nil
}

// hold keeps Run from returning until s.work.Done, or reports that it is about to.
func (s *Server) hold() bool {
	s.setting.Lock() // close ends life before it takes the lock, so Run cannot be waiting yet if life goes on
	defer s.setting.Unlock()
	if s.life.Err() != nil {
		return false
	}
	s.work.Add(1)
	return true
}

// expand returns the names that the C library tries for name, in order. A name that ends in a dot is tried as it is
// only; one with Ndots dots or more is tried as it is first, others last.
func (c *Config) expand(name string) []Lookup {
	if _, ok := wire.IsDomainName(name); !ok || strings.Trim(name, ".") == "" {
		return nil
	}
	asIs := Lookup{Name: wire.Fqdn(name)}
	if wire.IsFqdn(name) {
		return []Lookup{asIs}
	}
	var tries []Lookup
	for _, domain := range c.Search {
		full := name + "." + domain
		if _, ok := wire.IsDomainName(full); ok {
			tries = append(tries, Lookup{Name: full, SearchDomain: strings.TrimSuffix(domain, ".")})
		}
	}
	if strings.Count(name, ".") >= c.Ndots {
		return slices.Insert(tries, 0, asIs)
	}
	return append(tries, asIs)
}

// lookUp asks for the addresses of l.Name, A and AAAA at once as resolvers do, and fills in the rest of l.
func (s *Server) lookUp(ctx context.Context, l *Lookup) error {
	types := [...]uint16{wire.TypeA, wire.TypeAAAA}
	l.Questions = make([]Question, len(types))
	errs := make([]error, len(types))
	var asking sync.WaitGroup
	for i, qtype := range types {
		asking.Go(func() { errs[i] = s.traceQuestion(ctx, l.Name, qtype, &l.Questions[i]) })
	}
	d := s.state.Load().route(l.Name, wire.TypeA) // for AAAA it decides alike: see addressing
	l.Source, l.Workload, l.Reason, l.Fallback = d.Source.String(), d.Workload, d.Reason, d.Fallback
	if d.Name != wire.CanonicalName(l.Name) {
		l.Asked = d.Name
	}
	asking.Wait()
	return errors.Join(errs...)
}

// traceQuestion asks one question, by TCP if there is too much for UDP, and fills in what came of it.
func (s *Server) traceQuestion(ctx context.Context, name string, qtype uint16, out *Question) error {
	start := time.Now()
	out.Type = wire.TypeToString[qtype]
	q, err := stubQuery(name, qtype)
	if err != nil {
		return err
	}
	for _, tcp := range []bool{false, true} {
		a := s.remembered(&q, time.Now())
		out.Cached = a != nil
		if a == nil {
			if a, err = s.await(ctx, q, tcp); err != nil {
				return err
			}
		}
		truncated, err := s.describe(&q, a, tcp, out)
		if err != nil {
			return err
		}
		if !truncated {
			break
		}
	}
	out.TookMillis = float64(time.Since(start).Microseconds()) / 1000
	return nil
}

// stubQuery returns a question as a stub resolver with EDNS sends it.
func stubQuery(name string, qtype uint16) (query, error) {
	m := new(wire.Msg).SetQuestion(name, qtype)
	m.SetEdns0(forwarderUDPBytes, false)
	msg, err := m.Pack()
	if err != nil {
		return query{}, err
	}
	q, v := parseQuery(msg)
	if v != verdictAsk {
		return query{}, errMalformed
	}
	return q, nil
}

// await joins those who ask q.
func (s *Server) await(ctx context.Context, q query, tcp bool) (*answer, error) {
	got := make(chan *answer, 1)
	s.flight(waiter{query: q, tcp: tcp, since: time.Now(), trace: got})
	select {
	case a := <-got:
		if s.life.Err() != nil {
			return nil, errEnded // it may say no more than that
		}
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.life.Done():
		return nil, errEnded
	}
}

// describe says what was given with a, and what a client that asked q gets of it. truncated reports that the client
// would ask again by TCP.
func (s *Server) describe(q *query, a *answer, tcp bool, out *Question) (truncated bool, err error) {
	given, got := new(wire.Msg), new(wire.Msg)
	rules := s.state.Load().outward
	out.Withheld, out.Virtual = nil, nil
	now := time.Now()
	if err := given.Unpack(appendReply(nil, q, a, now, q.limit(true))); err != nil {
		return false, fmt.Errorf("answer: %w", err)
	}
	if err := got.Unpack(appendReply(nil, q, rules.told(q, a), now, q.limit(tcp))); err != nil {
		return false, fmt.Errorf("answer: %w", err)
	}
	out.AnsweredBy, out.Agents = a.source.String(), a.agents
	out.Rcode = wire.RcodeToString[got.Rcode]
	out.Errors = extendedErrors(got)
	out.Aliases, out.Given = answered(given)
	_, out.Addresses = answered(got)
	if a.source == SourceCluster || a.source == SourceAgent {
		for _, addr := range out.Given {
			out.tell(rules, a, addr)
		}
	}
	return got.Truncated, nil
}

// tell notes what becomes of addr, an address of a.
func (q *Question) tell(rules *outward, a *answer, addr netip.Addr) {
	vip, err := rules.give(a, addr)
	switch {
	case errors.Is(err, errWithheld):
		w, _ := rules.withheld.find(addr)
		q.Withheld = append(q.Withheld, WithheldAddr{Addr: addr, Prefix: w.Prefix, Owner: w.Owner})
	case errors.Is(err, errForeign), errors.Is(err, errAstray): // the extended error says so
	case err != nil:
		q.Virtual = append(q.Virtual, VirtualAddr{Real: addr, Error: err.Error()})
	case vip != addr:
		q.Virtual = append(q.Virtual, VirtualAddr{Real: addr, VIP: vip})
	}
}

// answered returns the aliases and the addresses in the answer section of m.
func answered(m *wire.Msg) (aliases []string, addrs []netip.Addr) {
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *wire.CNAME:
			aliases = append(aliases, rr.Target)
		case *wire.A:
			if addr, ok := netip.AddrFromSlice(rr.A); ok {
				addrs = append(addrs, addr.Unmap())
			}
		case *wire.AAAA:
			if addr, ok := netip.AddrFromSlice(rr.AAAA); ok {
				addrs = append(addrs, addr.Unmap())
			}
		}
	}
	return aliases, addrs
}

func extendedErrors(m *wire.Msg) []ExtendedError {
	var out []ExtendedError
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*wire.EDNS0_EDE); ok {
				out = append(out, ExtendedError{e.InfoCode, wire.ExtendedErrorCodeToString[e.InfoCode], e.ExtraText})
			}
		}
	}
	return out
}
