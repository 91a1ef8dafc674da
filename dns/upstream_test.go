package dns

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	wire "github.com/miekg/dns"
)

// TestNobodyOutsideNamesVirtualAddresses: a name of the public DNS that leads to a virtual address would have a
// browser's page reach into the cluster. Everything else passes as it is.
func TestNobodyOutsideNamesVirtualAddresses(t *testing.T) {
	outside := startFake(t, zone(t,
		"evil.example. 60 IN A 246.130.4.7", "evil.example. 60 IN AAAA fd99::7",
		"both.example. 60 IN A 203.0.113.9", "both.example. 60 IN A 246.130.4.8",
		"www.example. 60 IN A 203.0.113.10", "www.example. 60 IN AAAA 2001:db8::10", "www.example. 60 IN A 247.1.2.3",
		"hint.example. 60 IN HTTPS 1 . alpn=h2 ipv4hint=246.1.1.1,203.0.113.11",
		"plain.example. 60 IN HTTPS 1 . alpn=h2 ipv4hint=203.0.113.11",
		"alias.example. 60 IN CNAME evil.example.",
		"echo.default.svc.first.example. 5 IN A 248.130.4.7", // of another connection, whose resolver is below this one
	))
	cfg := connected(startFake(t, zone(t)), outside)
	cfg.VirtualSubnets = prefixes("246.0.0.0/8", "fd99::/48")
	cfg.OthersVirtual = prefixes("248.0.0.0/8")
	var blocked atomic.Int64
	r := startResolver(t, cfg, Options{Events: func(e Event) {
		if e.Kind == AddressBlocked && e.Source == SourceUpstream {
			blocked.Add(1)
		}
	}})
	for _, tc := range []struct {
		name    string
		qtype   uint16
		want    []string // addresses
		changed bool
	}{
		{"evil.example.", wire.TypeA, nil, true},
		{"evil.example.", wire.TypeAAAA, nil, true},
		{"alias.example.", wire.TypeA, nil, true},
		{"both.example.", wire.TypeA, []string{"203.0.113.9"}, true},
		{"www.example.", wire.TypeA, []string{"203.0.113.10", "247.1.2.3"}, false},
		{"www.example.", wire.TypeAAAA, []string{"2001:db8::10"}, false},
		{"echo.default.svc.first.example.", wire.TypeA, []string{"248.130.4.7"}, false},
		{"hint.example.", wire.TypeHTTPS, []string{"203.0.113.11"}, true},
		{"plain.example.", wire.TypeHTTPS, []string{"203.0.113.11"}, false},
	} {
		for _, network := range []string{"udp", "tcp", "udp"} { // the last from memory, if it is remembered
			before := blocked.Load()
			q := question(tc.name, tc.qtype)
			q.SetEdns0(1232, false)
			m := r.ask(network, q)
			got := named(m)
			if m.Rcode != wire.RcodeSuccess || !slices.Equal(got, tc.want) {
				t.Errorf("%s %s: %s %v, want %v", tc.name, wire.TypeToString[tc.qtype], wire.RcodeToString[m.Rcode], got, tc.want)
			}
			if errs := extendedErrors(m); (len(errs) == 1 && errs[0].Code == wire.ExtendedErrorCodeBlocked) != tc.changed {
				t.Errorf("%s: extended errors %v", tc.name, errs)
			}
			if !tc.changed && blocked.Load() != before {
				t.Errorf("%s: something was blocked", tc.name)
			}
		}
	}
	if blocked.Load() == 0 {
		t.Error("nobody was told")
	}
}

// TestUpstreamAnswersAreNotUnpackedForNothing: looking whether there is anything to take out costs no memory.
func TestUpstreamAnswersAreNotUnpackedForNothing(t *testing.T) {
	m := question("www.example.", wire.TypeA)
	m.Response = true
	for _, text := range []string{"www.example. 60 IN A 203.0.113.10", "www.example. 60 IN AAAA 2001:db8::10", "www.example. 60 IN TXT hello"} {
		rr, err := wire.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{VirtualSubnets: prefixes("246.0.0.0/8", "fd99::/48")}
	end := headerBytes + len("\x03www\x07example\x00") + 4
	if n := testing.AllocsPerRun(100, func() {
		if cfg.mayNameVirtual(msg, end) {
			t.Error("it names a virtual address")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// named returns the addresses in the answer section of m, those of hints too.
func named(m *wire.Msg) (out []string) {
	changeAddresses(m.Copy(), func(a netip.Addr) netip.Addr { out = append(out, a.String()); return a })
	return out
}
