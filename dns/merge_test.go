package dns

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	wire "github.com/miekg/dns"
)

// throughAgent reports the addresses that the agent of these tests is the way to.
func throughAgent(addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes("10.132.0.0/16", "127.0.0.0/8", "fd00:132::/32"), func(p netip.Prefix) bool { return p.Contains(addr) })
}

func TestMergeAgent(t *testing.T) {
	const sig = " 8 3 5 20300101000000 20200101000000 1 cluster.local. AAAA"
	for _, tt := range []struct {
		situation         string
		gateway, agent    []string // answer sections
		gatewayMore, more []string // additional sections
		want, wantMore    []string
		changed           bool
	}{
		{"another address", []string{"x. 5 IN A 10.132.0.1"}, []string{"x. 5 IN A 10.132.0.9"}, nil, nil,
			[]string{"x. 5 IN A 10.132.0.9"}, nil, true},
		{"only those of its subnets", []string{"x. 5 IN A 10.130.0.1", "x. 5 IN A 10.132.0.1", "x. 5 IN A 10.140.0.1"},
			[]string{"x. 5 IN A 10.130.0.9", "x. 5 IN A 10.132.0.9"}, nil, nil,
			[]string{"x. 5 IN A 10.130.0.1", "x. 5 IN A 10.132.0.9", "x. 5 IN A 10.140.0.1"}, nil, true},
		{"more addresses, one twice", []string{"x. 5 IN A 10.132.0.1"}, []string{"x. 5 IN A 10.132.0.8", "x. 5 IN A 10.132.0.9", "x. 5 IN A 10.132.0.8"}, nil, nil,
			[]string{"x. 5 IN A 10.132.0.8", "x. 5 IN A 10.132.0.9"}, nil, true},
		{"fewer addresses", []string{"x. 5 IN A 10.132.0.1", "x. 5 IN A 127.0.0.1", "x. 5 IN A 10.130.0.1"}, []string{"x. 5 IN A 10.132.0.1"}, nil, nil,
			[]string{"x. 5 IN A 10.132.0.1", "x. 5 IN A 10.130.0.1"}, nil, true},
		{"the lowest TTL for all of the set", []string{"x. 5 IN A 10.132.0.1", "x. 5 IN A 10.130.0.1", "x. 9 IN TXT t"}, []string{"x. 3 IN A 10.132.0.9", "x. 1 IN A 10.130.0.9"}, nil, nil,
			[]string{"x. 3 IN A 10.132.0.9", "x. 3 IN A 10.130.0.1", "x. 9 IN TXT t"}, nil, true},
		{"a TTL that is lower already", []string{"x. 2 IN A 10.132.0.1"}, []string{"x. 3 IN A 10.132.0.9"}, nil, nil,
			[]string{"x. 2 IN A 10.132.0.9"}, nil, true},
		{"the same in another order", []string{"x. 5 IN A 10.132.0.1", "x. 5 IN A 10.132.0.2", "x. 5 IN RRSIG A" + sig}, []string{"X. 1 IN A 10.132.0.2", "X. 1 IN A 10.132.0.1"}, nil, nil,
			[]string{"x. 5 IN A 10.132.0.1", "x. 5 IN A 10.132.0.2", "x. 5 IN RRSIG A" + sig}, nil, false},
		{"it knows none", []string{"x. 5 IN A 10.132.0.1"}, nil, nil, nil, []string{"x. 5 IN A 10.132.0.1"}, nil, false},
		{"it knows others", []string{"x. 5 IN A 10.132.0.1"}, []string{"x. 5 IN A 10.130.0.9"}, nil, nil, []string{"x. 5 IN A 10.132.0.1"}, nil, false},
		{"it knows those of a type the gateway has none of", []string{"x. 5 IN A 10.130.0.1"}, []string{"x. 5 IN AAAA fd00:132::1"}, nil, nil, []string{"x. 5 IN A 10.130.0.1"}, nil, false},
		{"no address of the gateway's is in its subnets", []string{"x. 5 IN A 10.130.0.1"}, []string{"x. 5 IN A 10.132.0.9"}, nil, nil, []string{"x. 5 IN A 10.130.0.1"}, nil, false},
		{"aliases of both", []string{"x. 5 IN CNAME y.", "y. 5 IN CNAME z.", "z. 5 IN A 10.132.0.1"}, []string{"x. 4 IN CNAME w.", "w. 4 IN A 10.132.0.9"}, nil, nil,
			[]string{"x. 5 IN CNAME y.", "y. 5 IN CNAME z.", "z. 4 IN A 10.132.0.9"}, nil, true},
		{"IPv6", []string{"x. 5 IN AAAA fd00:132::1", "x. 5 IN AAAA fd00:130::1"}, []string{"x. 5 IN AAAA fd00:132::9"}, nil, nil,
			[]string{"x. 5 IN AAAA fd00:132::9", "x. 5 IN AAAA fd00:130::1"}, nil, true},
		{"IPv4 mapped into IPv6", []string{"x. 5 IN AAAA ::ffff:10.132.0.1"}, []string{"x. 5 IN AAAA ::ffff:10.132.0.9"}, nil, nil,
			[]string{"x. 5 IN AAAA ::ffff:10.132.0.9"}, nil, true},
		{"signatures of what changed", []string{"x. 5 IN A 10.132.0.1", "X. 5 IN RRSIG A" + sig, "x. 5 IN RRSIG TXT" + sig, "y. 5 IN RRSIG A" + sig}, []string{"x. 5 IN A 10.132.0.9", "x. 5 IN RRSIG A" + sig}, nil, nil,
			[]string{"x. 5 IN A 10.132.0.9", "x. 5 IN RRSIG TXT" + sig, "y. 5 IN RRSIG A" + sig}, nil, true},
		{"glue, by its name", []string{"x. 5 IN SRV 0 1 80 a."}, []string{"x. 5 IN SRV 0 1 81 b."},
			[]string{"a. 5 IN A 10.132.0.1", "b. 5 IN A 10.132.0.2", "c. 5 IN A 10.130.0.1"}, []string{"B. 5 IN A 10.132.0.8", "c. 5 IN A 10.132.0.9"},
			[]string{"x. 5 IN SRV 0 1 80 a."}, []string{"a. 5 IN A 10.132.0.1", "b. 5 IN A 10.132.0.8", "c. 5 IN A 10.130.0.1"}, true},
		{"glue that the agent has elsewhere", nil, []string{"a. 5 IN A 10.132.0.9"}, []string{"a. 5 IN A 10.132.0.1"}, nil, nil, []string{"a. 5 IN A 10.132.0.9"}, true},
		{"hints of the same target", []string{`x. 5 IN HTTPS 1 a. alpn="h2" ipv4hint="10.130.0.1,10.132.0.1,10.132.0.2" ipv6hint="fd00:132::1"`, `x. 5 IN HTTPS 2 a. ipv4hint="10.132.0.1"`},
			[]string{`x. 4 IN HTTPS 1 A. ipv4hint="10.132.0.9,10.130.0.9"`, `x. 5 IN HTTPS 2 b. ipv4hint="10.132.0.8"`}, nil, nil,
			[]string{`x. 4 IN HTTPS 1 a. alpn="h2" ipv4hint="10.130.0.1,10.132.0.9" ipv6hint="fd00:132::1"`, `x. 4 IN HTTPS 2 a. ipv4hint="10.132.0.1"`}, nil, true},
		{"hints of a service", []string{`x. 5 IN SVCB 1 . ipv6hint="fd00:132::1"`}, []string{`x. 5 IN SVCB 1 . ipv6hint="fd00:132::8,fd00:132::9"`}, nil, nil,
			[]string{`x. 5 IN SVCB 1 . ipv6hint="fd00:132::8,fd00:132::9"`}, nil, true},
	} {
		m, said := new(wire.Msg), new(wire.Msg)
		m.AuthenticatedData = true
		m.Answer, m.Extra = records(t, tt.gateway), records(t, tt.gatewayMore)
		said.Answer, said.Extra = records(t, tt.agent), records(t, tt.more)
		before := fmt.Sprint(said)
		mergeAgent(m, said, throughAgent)
		if !sameText(t, m.Answer, tt.want) || !sameText(t, m.Extra, tt.wantMore) || m.AuthenticatedData == tt.changed {
			t.Errorf("%s: %v", tt.situation, m)
		}
		if after := fmt.Sprint(said); after != before {
			t.Errorf("%s: what the agent said became %s", tt.situation, after)
		}
		once := m.Copy()
		if mergeAgent(m, said, throughAgent); !sameRecords(m, once) {
			t.Errorf("%s: again: %v", tt.situation, m)
		}
	}
}

// Answers made to be multiplied are not.
func TestMergingIsBounded(t *testing.T) {
	const many = 2000
	m, said := new(wire.Msg), new(wire.Msg)
	for i := range many {
		m.Answer = append(m.Answer, rr(t, fmt.Sprintf("x%d. 5 IN A 10.132.0.1", i)))
		said.Answer = append(said.Answer, rr(t, fmt.Sprintf("x. 5 IN A 10.132.%d.%d", 1+i/250, i%250)))
	}
	mergeAgent(m, said, throughAgent)
	if n := len(m.Answer); n <= many || n > many+wire.MaxMsgSize/4 {
		t.Errorf("%d records", n)
	}
	q := withEDNS("x.cluster.local", wire.TypeA)
	query, _ := parseQuery(pack(t, q))
	m.SetReply(q)
	for i := range m.Answer {
		m.Answer[i].Header().Name = strings.Repeat("y", i%50+1) + fmt.Sprint(i, ".")
	}
	s := NewServer(Options{})
	if _, err := s.clusterAnswer(s.state.Load(), reply{msg: m, source: SourceCluster}, &query, "x.cluster.local.", "x.cluster.local."); !errors.Is(err, errLong) {
		t.Errorf("an answer too long for a message: %v", err)
	}
}

// Whatever the two say, merging agrees with the slow way, leaves what the agent said alone, and changes nothing the
// second time.
func FuzzMergeAgent(f *testing.F) {
	add := func(gateway, agent []string, extra ...string) {
		m, said := new(wire.Msg), new(wire.Msg)
		m.AuthenticatedData = true
		m.Answer, said.Answer, m.Extra = records(f, gateway), records(f, agent), records(f, extra)
		f.Add(pack(f, m), pack(f, said))
	}
	const sig = " 8 1 5 20300101000000 20200101000000 1 x. AAAA"
	add([]string{"x. 5 IN CNAME y.", "y. 5 IN A 10.132.0.1", "y. 5 IN A 10.130.0.1", "y. 5 IN RRSIG A" + sig}, []string{"x. 3 IN A 10.132.0.9", "x. 3 IN A 127.0.0.1", "x. 1 IN A 10.130.0.7"})
	add([]string{"x. 5 IN SRV 0 1 80 a."}, []string{"a. 5 IN A 10.132.0.9", "a. 2 IN AAAA fd00:132::9"}, "a. 5 IN A 10.132.0.1", "a. 5 IN AAAA fd00:132::1", "b. 5 IN A 10.132.0.2")
	add([]string{`x. 5 IN HTTPS 1 a. mandatory=ipv4hint ipv4hint=10.132.0.1,10.130.0.1 ipv6hint=fd00:132::1`, `x. 6 IN HTTPS 1 a. ipv4hint=10.132.0.2`},
		[]string{`x. 4 IN HTTPS 1 a. ipv4hint=10.132.0.9 ipv6hint=fd00:132::9,fd00:132::a`, `x. 1 IN HTTPS 2 a. ipv4hint=10.132.0.8`})
	add([]string{"x. 5 IN AAAA ::ffff:10.132.0.1", "x. 5 IN AAAA fd00:132::1"}, []string{"x. 5 IN AAAA ::ffff:10.132.0.2"})
	f.Fuzz(func(t *testing.T, gateway, agent []byte) {
		m, said := new(wire.Msg), new(wire.Msg)
		if len(gateway)+len(agent) > 1000 || m.Unpack(gateway) != nil || said.Unpack(agent) != nil {
			return
		}
		given, heard := m.Copy(), fmt.Sprint(said)
		want := slowMerge(given, said)
		mergeAgent(m, said, throughAgent)
		if !sameRecords(m, want) || m.AuthenticatedData != want.AuthenticatedData {
			t.Errorf("%v\nand\n%s\nbecame\n%v\nwant\n%v", given, heard, m, want)
		}
		if after := fmt.Sprint(said); after != heard {
			t.Errorf("%s\nbecame\n%s", heard, after)
		}
		again := m.Copy()
		if mergeAgent(again, said, throughAgent); !sameRecords(m, again) {
			t.Errorf("%v\nbecame, the second time\n%v", m, again)
		}
	})
}

// mention is one address that goes through the agent, with the record it is in. set and service tell where it stands.
type mention struct {
	rr           wire.RR
	set, service string // service is that of a hint
	addr         netip.Addr
}

// mentionsIn returns the mentions in rrs, in order.
func mentionsIn(rrs []wire.RR) (out []mention) {
	for _, rr := range rrs {
		set, service := setName(rr.Header().Name, rr.Header().Rrtype), ""
		note := func(ip []byte) {
			if addr, _ := netip.AddrFromSlice(ip); throughAgent(addr.Unmap()) {
				out = append(out, mention{rr, set, service, addr.Unmap()})
			}
		}
		switch rr := rr.(type) {
		case *wire.A:
			note(rr.A)
		case *wire.AAAA:
			note(rr.AAAA)
		}
		slowHints(rr, func(name string, hint *[]net.IP) {
			service = name
			for _, ip := range *hint {
				note(ip)
			}
		})
	}
	return out
}

// slowHints calls f for each hint of rr.
func slowHints(rr wire.RR, f func(service string, hint *[]net.IP)) {
	var svcb *wire.SVCB
	switch rr := rr.(type) {
	case *wire.HTTPS:
		svcb = &rr.SVCB
	case *wire.SVCB:
		svcb = rr
	default:
		return
	}
	for _, v := range svcb.Value {
		service := fmt.Sprint(svcb.Priority, strings.ToLower(svcb.Target), v.Key())
		switch hint := v.(type) {
		case *wire.SVCBIPv4Hint:
			f(service, &hint.Hint)
		case *wire.SVCBIPv6Hint:
			f(service, &hint.Hint)
		}
	}
}

// slowMerge is the slow and obvious mergeAgent: each address of m is looked at by itself.
func slowMerge(m, said *wire.Msg) *wire.Msg {
	m = m.Copy()
	changed := map[string]bool{}
	slowSection(&m.Answer, said.Answer, false, changed)
	slowSection(&m.Ns, slices.Concat(said.Answer, said.Ns, said.Extra), true, changed)
	slowSection(&m.Extra, slices.Concat(said.Answer, said.Ns, said.Extra), true, changed)
	for _, rrs := range []*[]wire.RR{&m.Answer, &m.Ns, &m.Extra} {
		*rrs = slices.DeleteFunc(*rrs, func(rr wire.RR) bool {
			sig, ok := rr.(*wire.RRSIG)
			return ok && changed[setName(sig.Hdr.Name, sig.TypeCovered)]
		})
	}
	m.AuthenticatedData = m.AuthenticatedData && len(changed) == 0
	return m
}

func slowSection(rrs *[]wire.RR, pool []wire.RR, named bool, changed map[string]bool) {
	ours, theirs := mentionsIn(*rrs), mentionsIn(pool)
	ttls := map[string]uint32{}
	for _, o := range ours {
		for _, their := range instead(o, ours, theirs, named) {
			changed[o.set] = true
			if ttl, ok := ttls[o.set]; !ok || their.rr.Header().Ttl < ttl {
				ttls[o.set] = their.rr.Header().Ttl
			}
		}
	}
	for _, rr := range *rrs {
		set := setName(rr.Header().Name, rr.Header().Rrtype)
		if ttl, ok := ttls[set]; ok && rr.Header().Ttl < ttl {
			ttls[set] = rr.Header().Ttl
		}
	}
	var out []wire.RR
	done := map[string]bool{}
	for _, rr := range *rrs {
		for _, rr := range slowRecord(rr, ours, theirs, named, done) {
			if ttl, ok := ttls[setName(rr.Header().Name, rr.Header().Rrtype)]; ok {
				rr.Header().Ttl = ttl
			}
			out = append(out, rr)
		}
	}
	*rrs = out
}

// instead returns those of theirs that stand where o does, unless they are none or name the same addresses.
func instead(o mention, ours, theirs []mention, named bool) (out []mention) {
	here, there := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, our := range ours {
		if our.set == o.set && our.service == o.service {
			here[our.addr] = true
		}
	}
	for _, their := range theirs {
		sameSet := their.set == o.set || !named && their.rr.Header().Rrtype == o.rr.Header().Rrtype
		if sameSet && their.service == o.service {
			there[their.addr] = true
			out = append(out, their)
		}
	}
	if maps.Equal(here, there) {
		return nil
	}
	return out
}

// slowRecord returns what becomes of rr. done are the sets whose first record has been there.
func slowRecord(rr wire.RR, ours, theirs []mention, named bool, done map[string]bool) (out []wire.RR) {
	out = []wire.RR{rr}
	for _, o := range ours {
		taken := instead(o, ours, theirs, named)
		if o.rr != rr || len(taken) == 0 {
			continue
		}
		if o.service == "" {
			out = nil
			if !done[o.set] {
				out = slowCopies(rr, taken)
			}
			done[o.set] = true
		}
		slowHints(rr, func(service string, hint *[]net.IP) {
			if service == o.service {
				*hint = slowList(*hint, taken)
			}
		})
	}
	return out
}

// slowCopies returns copies of rr with the addresses of taken.
func slowCopies(rr wire.RR, taken []mention) (out []wire.RR) {
	seen := map[netip.Addr]bool{}
	for _, their := range taken {
		if seen[their.addr] {
			continue
		}
		seen[their.addr] = true
		made := wire.Copy(rr)
		switch made := made.(type) {
		case *wire.A:
			made.A = their.rr.(*wire.A).A
		case *wire.AAAA:
			made.AAAA = their.rr.(*wire.AAAA).AAAA
		}
		out = append(out, made)
	}
	return out
}

// slowList puts taken in the place of the first address of ips that goes through the agent, and takes the others out. It
// does so once only: with each further mention in one hint it is called again.
func slowList(ips []net.IP, taken []mention) (out []net.IP) {
	for i, ip := range ips {
		addr, _ := netip.AddrFromSlice(ip)
		if !throughAgent(addr.Unmap()) {
			out = append(out, ip)
			continue
		}
		first := !slices.ContainsFunc(ips[:i], func(ip net.IP) bool {
			addr, _ := netip.AddrFromSlice(ip)
			return throughAgent(addr.Unmap())
		})
		if !first {
			continue
		}
		seen := map[netip.Addr]bool{}
		for _, their := range taken {
			if !seen[their.addr] {
				out = append(out, net.IP(their.addr.AsSlice()))
			}
			seen[their.addr] = true
		}
	}
	return out
}
