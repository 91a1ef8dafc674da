package dns

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// Whatever arrives is answered with a message a client can read, about its question, or not at all.
func FuzzQuery(f *testing.F) {
	s, msg := remembering(f, "echo.default.svc.cluster.local.")
	f.Add(msg)
	f.Add(pack(f, question("x.", wire.TypeAXFR)))
	f.Add(msg[:20])
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) > maxQueryBytes {
			return
		}
		reply, q, ask := s.quick(nil, msg, false, time.Now())
		if reply != nil {
			checkReply(t, msg, reply)
		}
		if !ask {
			return
		}
		name, err := q.name()
		if err != nil {
			t.Fatalf("a question without a name: %v", err)
		}
		checkReply(t, msg, appendReply(nil, &q, unreachable("", errDown), time.Now(), q.limit(false)))
		m := new(wire.Msg)
		if err := m.Unpack(upstreamQuery(&q)); err == nil && m.Question[0].Name != name {
			t.Errorf("asked about %q instead of %q", m.Question[0].Name, name)
		}
		if full, err := clusterQuery(&q, name); err != nil {
			t.Errorf("%q: %v", name, err)
		} else if err := m.Unpack(full); err != nil || m.Question[0].Name != name || m.Question[0].Qtype != q.qtype {
			t.Errorf("asked the cluster %v: %v", m, err)
		}
		Route(Config{Namespace: "default", Namespaces: []string{"a"}, Connection: "c"}, name, q.qtype)
	})
}

func checkReply(t *testing.T, query, reply []byte) {
	t.Helper()
	m := new(wire.Msg)
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("reply %x: %v", reply, err)
	}
	if !m.Response || !bytes.Equal(reply[:2], query[:2]) || len(reply) > wire.MinMsgSize && m.IsEdns0() == nil {
		t.Errorf("reply %v", m)
	}
	if len(m.Question) == 1 && !bytes.HasPrefix(query[headerBytes:], reply[headerBytes:headerBytes+1]) {
		t.Errorf("reply to another question: %v", m)
	}
}

// Whatever a resolver answers is passed on whole or cut at a record, never longer than the client takes; a readable
// answer stays readable and keeps its records.
func FuzzAnswer(f *testing.F) {
	q := question("www.example.com", wire.TypeA)
	q.SetEdns0(1232, true)
	m := new(wire.Msg).SetReply(q)
	m.Answer = []wire.RR{rr(f, "www.example.com. 300 IN A 192.0.2.1"), rr(f, "www.example.com. 0 IN TXT abc")}
	m.Ns = []wire.RR{rr(f, "example.com. 100 IN SOA ns.example.com. root.example.com. 1 2 3 4 5")}
	m.SetEdns0(512, true)
	msg := pack(f, m)
	m.Compress = true
	end, _ := questionEnd(msg)
	f.Add(msg[end:], uint16(2), uint16(1), uint16(1), uint16(512))
	f.Add(pack(f, m)[end:], uint16(2), uint16(1), uint16(1), uint16(60))
	packed := pack(f, q)
	f.Fuzz(func(t *testing.T, body []byte, an, ns, ar, size uint16) {
		query, _ := parseQuery(packed)
		msg := append(bytes.Clone(packed[:query.end]), body...)
		msg[2] |= flagQR >> 8
		setCount(msg, sectionAnswer, an%64)
		setCount(msg, sectionAuthority, ns%64)
		setCount(msg, sectionAdditional, ar%64)
		if len(msg) > 65535 {
			return
		}
		// The library also reads names that point forwards and counts of records that are not there, neither of which
		// it writes: what it can read is tried as it would write it.
		original := new(wire.Msg)
		readable := original.Unpack(msg) == nil
		if again, err := original.Pack(); readable && err == nil && original.Unpack(again) == nil {
			msg = again
		} else {
			readable = false
		}
		a, err := parseAnswer(bytes.Clone(msg), query.end, upstreamLifetimes, time.Now())
		if err != nil {
			if readable {
				t.Errorf("a readable answer is called malformed: %v", original)
			}
			return
		}
		limit := max(int(size), wire.MinMsgSize)
		if reply := appendReply(nil, &query, a, time.Now(), limit); len(reply) > limit {
			t.Errorf("%d bytes, more than %d", len(reply), limit)
		} else if readable {
			checkReply(t, packed, reply)
		}
		whole := new(wire.Msg)
		if err := whole.Unpack(appendReply(nil, &query, a, time.Now(), 1<<17)); readable && (err != nil || !sameRecords(whole, original)) {
			t.Errorf("%v\nbecame (%v)\n%v", original, err, whole)
		}
	})
}

func sameRecords(a, b *wire.Msg) bool {
	text := func(m *wire.Msg) string {
		var out strings.Builder
		for _, rrs := range [][]wire.RR{m.Answer, m.Ns, m.Extra} {
			for _, rr := range rrs {
				if rr.Header().Rrtype != wire.TypeOPT {
					out.WriteString(rr.String() + "\n")
				}
			}
		}
		return out.String()
	}
	return text(a) == text(b)
}

// Renaming there and back changes nothing, and in between nothing is left of the old name where it counts.
func FuzzRename(f *testing.F) {
	m := new(wire.Msg).SetReply(question("echo.default.svc.cluster.local", wire.TypeA))
	m.Answer = []wire.RR{
		rr(f, "echo.default.svc.cluster.local. 5 IN CNAME other.default.svc.cluster.local."),
		rr(f, "other.default.svc.cluster.local. 5 IN A 10.130.0.7"),
		rr(f, "x.default.svc.cluster.local. 5 IN SRV 0 0 80 echo.default.svc.cluster.local."),
	}
	m.Ns = []wire.RR{rr(f, "cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30")}
	f.Add(pack(f, m), "echo.default.svc.cluster.local.", "echo.")
	f.Add(pack(f, m), "other.default.svc.cluster.local.", "a.b.")
	f.Fuzz(func(t *testing.T, msg []byte, from, to string) {
		m, before := new(wire.Msg), new(wire.Msg)
		if m.Unpack(msg) != nil || before.Unpack(msg) != nil {
			return
		}
		if _, ok := wire.IsDomainName(from); !ok || from == "" || wire.CanonicalName(from) == wire.CanonicalName(to) || mentions(m, to) || signed(m) {
			return
		}
		respell(m, from)
		respell(before, from)
		rename(m, from, to)
		if mentions(m, from) {
			t.Errorf("%q is still in %v", from, m)
		}
		rename(m, to, from)
		before.AuthenticatedData = false
		if !reflect.DeepEqual(m, before) {
			t.Errorf("%v\nbecame\n%v", before, m)
		}
	})
}

// mentions reports whether name is among those that renaming changes.
func mentions(m *wire.Msg, name string) bool {
	found := false
	eachName(m, func(n *string) { found = found || strings.EqualFold(*n, name) })
	return found
}

// respell gives every mention of name one spelling.
func respell(m *wire.Msg, name string) {
	eachName(m, func(n *string) { renameName(n, name, name) })
}

func eachName(m *wire.Msg, f func(*string)) {
	for i := range m.Question {
		f(&m.Question[i].Name)
	}
	for _, rrs := range [][]wire.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range rrs {
			f(&rr.Header().Name)
			if alias, ok := rr.(*wire.CNAME); ok {
				f(&alias.Target)
			}
		}
	}
}

func signed(m *wire.Msg) bool {
	for _, rrs := range [][]wire.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range rrs {
			if dnssec(rr) {
				return true
			}
		}
	}
	return false
}
