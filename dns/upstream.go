package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	wire "github.com/miekg/dns"
)

// askUpstream asks the host's resolvers the question as the client asked it.
func (s *Server) askUpstream(ctx context.Context, st *state, q *query, tcp bool, limit lifetimes) (*answer, error) {
	if !s.upstreamSlots.take() {
		return nil, errBusy
	}
	defer s.upstreamSlots.give()
	s.counters.upstream.Add(1)
	msg := upstreamQuery(q)
	var response []byte
	var err error
	if tcp {
		response, err = st.upstreams.exchangeTCP(ctx, msg)
	} else {
		response, err = st.upstreams.exchange(ctx, msg, int(q.udpBytes))
	}
	if err != nil {
		return nil, err
	}
	end := headerBytes
	if response[5] != 0 {
		end = q.end
	}
	a, err := s.upstreamAnswer(st, response, end, limit)
	if err != nil {
		return nil, err
	}
	a.source = SourceUpstream
	return a, nil
}

// upstreamAnswer takes apart a response whose questions end at end. It stays byte for byte what it is unless it
// names a virtual address: that means something on this host alone, and who names it in the public DNS wants a
// browser's page to reach into the cluster (DNS rebinding).
func (s *Server) upstreamAnswer(st *state, response []byte, end int, limit lifetimes) (*answer, error) {
	if !st.cfg.mayNameVirtual(response, end) {
		return parseAnswer(response, end, limit, time.Now())
	}
	m := new(wire.Msg)
	if err := m.Unpack(response); err != nil {
		return nil, fmt.Errorf("answer of this host's resolvers: %w", err)
	}
	removed, _ := removeAddresses(m, st.cfg.standIn)
	if len(removed) == 0 {
		return parseAnswer(response, end, limit, time.Now())
	}
	for _, addr := range removed {
		s.counters.blocked.Add(1)
		s.event(Event{Kind: AddressBlocked, Source: SourceUpstream, Name: wire.CanonicalName(m.Question[0].Name), Addr: addr})
	}
	m.Extra = slices.DeleteFunc(m.Extra, func(rr wire.RR) bool { return rr.Header().Rrtype == wire.TypeOPT })
	m.Compress = true
	msg, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("answer of this host's resolvers: %w", err)
	}
	a, err := parseAnswer(msg, end, limit, time.Now())
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("%s means something on this host alone and cannot be named from outside", removed[0])
	a.opt, a.ownOPT = appendOPT(nil, 0, wire.ExtendedErrorCodeBlocked, clip(text)), true
	return a, nil
}

// mayNameVirtual reports whether a response has an address of this connection's virtual ones, or hints, which are
// not looked into here. It allocates nothing.
func (c *Config) mayNameVirtual(response []byte, end int) bool {
	if len(c.VirtualSubnets) == 0 || response[5] != 1 {
		return false
	}
	w := walk(response, end)
	for r, ok := w.next(); ok; r, ok = w.next() {
		switch r.rtype {
		case wire.TypeA, wire.TypeAAAA:
			if addr, ok := netip.AddrFromSlice(response[r.rdata:r.end]); ok && c.standIn(addr.Unmap()) {
				return true
			}
		case wire.TypeHTTPS, wire.TypeSVCB:
			return true
		}
	}
	return false
}
