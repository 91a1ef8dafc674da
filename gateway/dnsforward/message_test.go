package dnsforward

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// pack makes a query for name and type, changed by edit.
func pack(t testing.TB, name string, qtype uint16, edit ...func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	for _, e := range edit {
		e(m)
	}
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestParseQuery(t *testing.T) {
	valid := pack(t, "echo.default.svc.cluster.local.", dns.TypeA)
	with := func(at int, b byte) []byte {
		out := bytes.Clone(valid)
		out[at] = b
		return out
	}
	for _, row := range []struct {
		name string
		raw  []byte
		want error
	}{
		{"a question", valid, nil},
		{"the root", pack(t, ".", dns.TypeNS), nil},
		{"with EDNS0", pack(t, "a.b.", dns.TypeAAAA, func(m *dns.Msg) { m.SetEdns0(1232, true) }), nil},
		{"the longest name", pack(t, strings.Repeat(strings.Repeat("a", 62)+".", 4), dns.TypeA), nil},
		{"nothing", nil, errNotQuery},
		{"a header alone", valid[:headerSize], errNotQuery},
		{"cut in the name", valid[:headerSize+3], errNotQuery},
		{"cut in the class", valid[:len(valid)-1], errNotQuery},
		{"an answer", with(2, 0x80), errNotQuery},
		{"no question", with(5, 0), errNotQuery},
		{"two questions", with(5, 2), errNotQuery},
		{"a compression pointer", with(headerSize, 0xc0), errNotQuery},
		{"an update", pack(t, "a.b.", dns.TypeSOA, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), errOpcode},
		{"a zone transfer", pack(t, "a.b.", dns.TypeAXFR), errTransfer},
		{"an incremental one", pack(t, "a.b.", dns.TypeIXFR), errTransfer},
		{"a name too long", append(append(make([]byte, 5, 400), append([]byte{1, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{1, 'a'}, 150)...)...), 0, 0, 1, 0, 1), errNotQuery},
	} {
		t.Run(row.name, func(t *testing.T) {
			q, err := parseQuery(row.raw)
			if !errors.Is(err, row.want) || (row.want == nil) != (err == nil) {
				t.Fatalf("error %v, want %v", err, row.want)
			}
			if err == nil && len(q.entry) < 5 {
				t.Errorf("entry of %d bytes", len(q.entry))
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	query := new(dns.Msg).SetQuestion("Echo.Default.", dns.TypeA)
	raw, _ := query.Pack()
	q, err := parseQuery(raw)
	if err != nil {
		t.Fatal(err)
	}
	reply := func(edit func(*dns.Msg)) []byte {
		m := new(dns.Msg).SetReply(query)
		edit(m)
		raw, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for _, row := range []struct {
		name string
		raw  []byte
		want bool
	}{
		{"the answer", reply(func(*dns.Msg) {}), true},
		{"in another case", reply(func(m *dns.Msg) { m.Question[0].Name = "echo.DEFAULT." }), true},
		{"another name", reply(func(m *dns.Msg) { m.Question[0].Name = "evil.Default." }), false},
		{"another type", reply(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }), false},
		{"a failure without the question", reply(func(m *dns.Msg) { m.Question, m.Rcode = nil, dns.RcodeFormatError }), true},
		{"success without the question", reply(func(m *dns.Msg) { m.Question = nil }), false},
		{"the query itself", raw, false},
		{"a stump", raw[:5], false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := answers(row.raw, q); got != row.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestFailure(t *testing.T) {
	raw := pack(t, "echo.default.", dns.TypeA, func(m *dns.Msg) { m.Id = 77; m.SetEdns0(1232, true) })
	var m dns.Msg
	if err := m.Unpack(failure(raw, dns.RcodeServerFailure, dns.ExtendedErrorCodeNetworkError, "why")); err != nil {
		t.Fatal(err)
	}
	if m.Id != 77 || !m.Response || m.Rcode != dns.RcodeServerFailure || m.Question[0].Name != "echo.default." {
		t.Errorf("answer is %v", &m)
	}
	ede, ok := m.IsEdns0().Option[0].(*dns.EDNS0_EDE)
	if !ok || ede.InfoCode != dns.ExtendedErrorCodeNetworkError || ede.ExtraText != "why" {
		t.Errorf("extended error is %v", m.IsEdns0())
	}
	plain := failure(pack(t, "echo.default.", dns.TypeA), dns.RcodeServerFailure, 22, "why")
	if err := m.Unpack(plain); err != nil || m.IsEdns0() != nil {
		t.Errorf("EDNS0 in the answer to a query without: %v, %v", &m, err)
	}
	if got := failure([]byte("rubbish that is no DNS"), dns.RcodeServerFailure, 22, ""); got != nil {
		t.Errorf("rubbish was answered: %v", got)
	}
}

// FuzzParseQuery compares with the library's reading: what we forward it must be able to read up to
// the question, and the entry must be the question.
func FuzzParseQuery(f *testing.F) {
	f.Add(pack(f, "echo.default.svc.cluster.local.", dns.TypeA))
	f.Add(pack(f, ".", dns.TypeANY, func(m *dns.Msg) { m.SetEdns0(4096, true) }))
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		_ = failure(raw, dns.RcodeServerFailure, 22, "x")
		q, err := parseQuery(raw)
		if err != nil {
			return
		}
		name, off, err := dns.UnpackDomainName(raw, headerSize)
		if err != nil {
			t.Fatalf("accepted a name the library refuses: %v", err)
		}
		if off+4 != headerSize+len(q.entry) {
			t.Fatalf("name %q ends at %d, entry has %d bytes", name, off, len(q.entry))
		}
		response := bytes.Clone(raw)
		response[2] |= 0x80
		if !answers(response, q) || answers(raw, q) {
			t.Fatal("a repeated question is not told from the question")
		}
	})
}
