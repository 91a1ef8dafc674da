package helper

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// frame puts a length in front of a body.
func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestReadRequest(t *testing.T) {
	for name, row := range map[string]struct {
		data []byte
		want string // "" means in order
	}{
		"hello":                       {frame(`{"version":1,"id":1,"type":"hello"}`), ""},
		"open":                        {frame(`{"version":1,"id":1,"type":"open","open":{"mtu":1420,"addresses":["245.1.2.3/32"]}}`), ""},
		"nothing":                     {nil, "EOF"},
		"half a length":               {[]byte{0, 0}, "unexpected EOF"},
		"half a body":                 {frame(`{"version":1}`)[:8], "EOF"},
		"a length of 4 GiB":           {[]byte{255, 255, 255, 255}, "longer than"},
		"an empty body":               {frame(``), "EOF"},
		"another version":             {frame(`{"version":2,"id":1,"type":"hello"}`), "version 2"},
		"an unknown type":             {frame(`{"version":1,"id":1,"type":"shell"}`), "unknown type"},
		"an unknown field":            {frame(`{"version":1,"id":1,"type":"hello","run":"sh"}`), "run"},
		"an unknown field inside":     {frame(`{"version":1,"type":"open","open":{"mtu":1,"addresses":[],"x":1}}`), "x"},
		"two objects":                 {frame(`{"version":1,"type":"hello"}{}`), "follows"},
		"open without its part":       {frame(`{"version":1,"type":"open"}`), "wrong parts"},
		"hello with a state":          {frame(`{"version":1,"type":"hello","state":{}}`), "wrong parts"},
		"reset":                       {frame(`{"version":1,"id":1,"type":"reset","reset":["10.130.0.0/16","fd10::/64"]}`), ""},
		"ipsec":                       {frame(`{"version":1,"id":1,"type":"ipsec"}`), ""},
		"ipsec with prefixes":         {frame(`{"version":1,"id":1,"type":"ipsec","reset":["10.0.0.0/8"]}`), "wrong parts"},
		"reset of nothing":            {frame(`{"version":1,"id":1,"type":"reset","reset":[]}`), "wrong parts"},
		"reset without its part":      {frame(`{"version":1,"id":1,"type":"reset"}`), "wrong parts"},
		"hello with prefixes":         {frame(`{"version":1,"id":1,"type":"hello","reset":[]}`), "wrong parts"},
		"close with a last status":    {frame(`{"version":1,"id":1,"type":"close","last":{"why":"quit"}}`), ""},
		"hello with a last status":    {frame(`{"version":1,"id":1,"type":"hello","last":{}}`), "wrong parts"},
		"a last status that is none":  {frame(`{"version":1,"id":1,"type":"close","last":"x"}`), "wrong parts"},
		"a last status of nothing":    {frame(`{"version":1,"id":1,"type":"close","last":null}`), "wrong parts"},
		"a huge last status":          {frame(`{"version":1,"id":1,"type":"close","last":{"x":"` + strings.Repeat("x", maxLast) + `"}}`), "wrong parts"},
		"a list":                      {frame(`[]`), "decode"},
		"a prefix that is none":       {frame(`{"version":1,"type":"open","open":{"mtu":1,"addresses":["10.0.0.0"]}}`), "decode"},
		"an MTU beyond all integers":  {frame(`{"version":1,"type":"open","open":{"mtu":1e99,"addresses":[]}}`), "decode"},
		"a very deep list":            {frame(`{"version":` + strings.Repeat("[", 20000)), "depth"},
		"a state with a string for n": {frame(`{"version":1,"type":"apply","state":{"mtu":"x"}}`), "decode"},
	} {
		_, err := readRequest(bytes.NewReader(row.data))
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q in it", name, err, row.want)
		}
	}
}

func TestOrderlyEndIsEOF(t *testing.T) {
	if _, err := readRequest(bytes.NewReader(nil)); err != io.EOF {
		t.Errorf("%v, want io.EOF", err)
	}
}

// FuzzRequest feeds the helper arbitrary bytes. What it takes for a request has to survive a round
// trip, and what passes the checks has to be within every bound.
func FuzzRequest(f *testing.F) {
	open, state := fine()
	reset := []netip.Prefix{netip.MustParsePrefix("10.130.0.0/16"), netip.MustParsePrefix("fd10::/64")}
	for _, r := range []request{
		{Type: typeHello}, {Type: typeClose}, {Type: typeOpen, Open: &open}, {Type: typeApply, State: &state}, {Type: typeReset, Reset: reset}, {Type: typeIPsec},
	} {
		r.Version = protocolVersion
		data, err := encode(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(frame(`{"version":1,"type":"close","last":{ "<": 1 }}`))
	f.Add(frame(`{"version":1,"type":"apply","state":{"routes":[{"prefix":"0.0.0.0/0"}]}}`))
	f.Add(frame(`{"version":1,"type":"reset","reset":["0.0.0.0/0"]}`))
	f.Add(frame(`{"version":1,"type":"hello","reset":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		req, err := readRequest(bytes.NewReader(data))
		if err != nil {
			if !reflect.DeepEqual(req, request{}) {
				t.Errorf("a request in spite of %v", err)
			}
			return
		}
		again, err := encode(req)
		if err != nil {
			t.Fatal(err)
		}
		back, err := readRequest(bytes.NewReader(again))
		if last := back.Last; last != nil {
			req.Last = last // the same in another spelling
		}
		if err != nil || !reflect.DeepEqual(back, req) {
			t.Errorf("round trip: %+v, %v; want %+v", back, err, req)
		}
		if req.State != nil {
			checkAccepted(t, *req.State, state)
		}
		if req.Type == typeReset && (Limits{}).checkReset(req.Reset) == nil {
			for _, p := range req.Reset {
				checkPrivate(t, p)
			}
		}
	})
}

// checkAccepted checks by other means that an accepted state takes nothing it should not.
func checkAccepted(t *testing.T, s, open hostnet.State) {
	if (Limits{}).checkState(s, open) != nil {
		return
	}
	if len(s.Routes) > maxRoutes || s.Interface != open.Interface || s.MTU < 576 || s.MTU > 9000 {
		t.Errorf("accepted %+v", s)
	}
	for _, r := range s.Routes {
		if r.Prefix.Bits() == 0 {
			t.Errorf("accepted route %v", r)
		}
		if !r.Throw {
			checkPrivate(t, r.Prefix)
		}
	}
	for _, d := range s.DNS.Search {
		if strings.ContainsAny(d, " \n\r\t#;\x00") {
			t.Errorf("accepted domain %q", d)
		}
	}
}

// checkPrivate checks by other means that a prefix is one that may be a cluster's without root's word.
func checkPrivate(t *testing.T, p netip.Prefix) {
	a := p.Addr()
	if a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || p.Bits() < 8 {
		t.Errorf("accepted %v", p)
	}
	if private := a.IsPrivate() || a.Is4() && (a.As4()[0] == 100 || a.As4()[0] >= 240); !private {
		t.Errorf("accepted public prefix %v", p)
	}
}

func TestErrorsKeepTheirMeaningAcrossTheSocket(t *testing.T) {
	for name, row := range map[string]struct{ err, want error }{
		"refused": {refuse("no"), ErrRefused},
		"foreign": {fmt.Errorf("x: %w", hostnet.ErrForeign), hostnet.ErrForeign},
		"failed":  {errors.New("disk full"), nil},
	} {
		data, err := json.Marshal(response{Error: toError(row.err)})
		if err != nil {
			t.Fatal(err)
		}
		var r response
		if err := json.Unmarshal(data, &r); err != nil {
			t.Fatal(err)
		}
		if row.want != nil && !errors.Is(r.Error, row.want) || r.Error.Error() != row.err.Error() {
			t.Errorf("%s: came over as %+v", name, r.Error)
		}
	}
	if toError(nil) != nil {
		t.Error("no error became one")
	}
}
