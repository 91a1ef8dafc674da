package enrol

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/version"
)

var nodeKey, agentKey = wgtypes.Key{1, 2, 3}, wgtypes.Key{4, 5, 6}

func addrs(text string) (out []netip.Addr) {
	for _, word := range strings.Fields(text) {
		out = append(out, netip.MustParseAddr(word))
	}
	return out
}

func twin(real, virtual string) Twin {
	return Twin{netip.MustParsePrefix(real), netip.MustParsePrefix(virtual)}
}

// request is one that is in order.
func request() Request {
	return Request{Version: version.Version, Connection: "ann-laptop-1", PublicKey: nodeKey,
		Node: addrs("245.1.2.4 fd7a:1::4"), Agent: addrs("245.1.2.9 fd7a:1::9"),
		Twins: []Twin{twin("127.0.0.0/8", "250.0.0.0/8"), twin("::1/128", "fd7a:2::1/128")}}
}

func TestRequestRoundTrip(t *testing.T) {
	other := request()
	other.Node, other.Agent, other.Twins = addrs("fd7a:1::4"), addrs("fd7a:1::5"), nil
	for name, r := range map[string]Request{
		"both families": request(),
		"IPv6 alone":    other,
		"bye":           {Version: version.Version, Connection: "ann-laptop-1", PublicKey: nodeKey, Bye: true},
	} {
		line, err := AppendRequest([]byte("before "), r)
		if err != nil || !strings.HasPrefix(string(line), "before {") || strings.Count(string(line), "\n") != 1 {
			t.Fatalf("%s: %q, %v", name, line, err)
		}
		got, err := ParseRequest(line[len("before "):])
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestRequestIsPutInOrder(t *testing.T) {
	r := request()
	r.Version = ""
	r.Node, r.Agent = addrs("fd7a:1::4 245.1.2.4"), addrs("fd7a:1::9 245.1.2.9")
	line, err := AppendRequest(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseRequest(line); err != nil || !reflect.DeepEqual(got, request()) {
		t.Errorf("%+v, %v", got, err)
	}
	r = request()
	r.Bye = true
	if line, err = AppendRequest(nil, r); err != nil || strings.Contains(string(line), "twins") || strings.Contains(string(line), "node") {
		t.Errorf("a bye says %s, %v", line, err)
	}
}

func TestParseRequest(t *testing.T) {
	good := fmt.Sprintf(`{"protocol":1,"version":"%s","connection":"c","publicKey":"%s","node":["245.1.2.4"],"agent":["245.1.2.9"],"twins":[{"real":"10.0.0.0/8","virtual":"246.0.0.0/8"}]}`,
		version.Version, nodeKey)
	with := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %s", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	many := strings.Repeat(`{"real":"10.0.0.0/8","virtual":"246.0.0.0/8"},`, MaxTwins)
	for _, row := range []struct{ name, line, reason, want string }{
		{"good", good, "", ""},
		{"with a newline", good + "\r\n", "", ""},
		{"unknown keys", with(`{"protocol"`, `{"later":[{"x":1}],"protocol"`), "", ""},
		{"no twins", with(`,"twins":[{"real":"10.0.0.0/8","virtual":"246.0.0.0/8"}]`, ""), "", ""},
		{"as many twins as can be", with(`"twins":[`, `"twins":[`+strings.TrimSuffix(many, many[:len(many)/MaxTwins])), "", ""},

		{"nothing", "", Malformed, "not a JSON object"},
		{"HTTP", "POST / HTTP/1.1\r\n", Malformed, "not a JSON object"},
		{"a list", "[" + good + "]", Malformed, "not a JSON object"},
		{"a word", `"hello"`, Malformed, "not a JSON object"},
		{"cut short", good[:len(good)-9], Malformed, "unexpected end"},
		{"two objects", good + good, Malformed, "invalid character"},
		{"too long", with(`"c"`, `"`+strings.Repeat("c", MaxRequest)+`"`), Malformed, "more than 32768 bytes"},
		{"another protocol", with(`"protocol":1`, `"protocol":2`), Incompatible, "speaks 1"},
		{"another protocol with another form", `{"protocol":7,"version":"0.1.0","publicKey":{"x":1}}`, Incompatible, "protocol 7"},
		{"no protocol", with(`"protocol":1,`, ""), Incompatible, "protocol 0"},
		{"a protocol in words", with(`"protocol":1`, `"protocol":"one"`), Malformed, "protocol"},
		{"an old version", with(version.Version, "7.0.0"), Incompatible, "more than one minor version apart"},
		{"no version", with(version.Version, "new"), Incompatible, "MAJOR.MINOR.PATCH"},
		{"an endless version", with(version.Version, strings.Repeat("1", 65)), Malformed, "not a version"},
		{"no connection", with(`"connection":"c"`, `"connection":""`), Malformed, "connection"},
		{"a connection that controls terminals", with(`"connection":"c"`, `"connection":"\u001b[2J"`), Malformed, "connection"},
		{"an endless connection", with(`"connection":"c"`, `"connection":"`+strings.Repeat("c", 254)+`"`), Malformed, "connection"},
		{"no key", with(nodeKey.String(), ""), Malformed, "publicKey: 0 characters"},
		{"half a key", with(nodeKey.String(), "AAEC"), Malformed, "publicKey: 4 characters"},
		{"not base64", with(nodeKey.String(), strings.Repeat("!", 44)), Malformed, "base64"},
		{"the zero key", with(nodeKey.String(), wgtypes.Key{}.String()), Malformed, "all zero"},
		{"a key of another type", with(`"`+nodeKey.String()+`"`, `7`), Malformed, "publicKey"},
		{"no addresses", with(`"node":["245.1.2.4"],"agent":["245.1.2.9"],`, ""), Malformed, "0 node and 0 agent"},
		{"no agent address", with(`,"agent":["245.1.2.9"]`, ""), Malformed, "1 node and 0 agent"},
		{"three addresses", with(`["245.1.2.4"],"agent":["245.1.2.9"]`, `["245.1.2.4","fd00::4","fd00::6"],"agent":["245.1.2.9","fd00::5","fd00::7"]`), Malformed, "3 node"},
		{"two of a family", with(`["245.1.2.4"],"agent":["245.1.2.9"]`, `["245.1.2.4","245.1.2.6"],"agent":["245.1.2.9","245.1.2.11"]`), Malformed, "one family"},
		{"families across", with(`["245.1.2.4"],"agent":["245.1.2.9"]`, `["245.1.2.4","fd00::4"],"agent":["fd00::5","245.1.2.9"]`), Malformed, "two plain ones of one family"},
		{"node and agent the same", with("245.1.2.9", "245.1.2.4"), Malformed, "two plain ones"},
		{"mapped", with("245.1.2.4", "::ffff:245.1.2.4"), Malformed, "two plain ones"},
		{"a zone", with(`["245.1.2.4"],"agent":["245.1.2.9"]`, `["fd00::4%eth0"],"agent":["fd00::5"]`), Malformed, "two plain ones"},
		{"an empty address", with("245.1.2.4", ""), Malformed, "two plain ones"},
		{"no address", with("245.1.2.4", strings.Repeat("localhost", 900)), Malformed, "request: "},
		{"too many twins", with(`"twins":[`, `"twins":[`+many), Malformed, "65, at most 64"},
		{"host bits", with("10.0.0.0/8", "10.0.0.1/8"), Malformed, "host bits"},
		{"two lengths", with("10.0.0.0/8", "10.0.0.0/9"), Malformed, "family and length"},
		{"two families", with("10.0.0.0/8", "fd00::/8"), Malformed, "family and length"},
		{"a mapped prefix", with(`"10.0.0.0/8","virtual":"246.0.0.0/8"`, `"::ffff:10.0.0.0/104","virtual":"fd00::/104"`), Malformed, "plain"},
		{"half a twin", with(`"real":"10.0.0.0/8",`, ""), Malformed, "invalid Prefix"},
		{"no prefix", with("10.0.0.0/8", "10.0.0.0"), Malformed, "request: "},
	} {
		r, err := ParseRequest([]byte(row.line))
		var no *Refusal
		switch {
		case row.reason == "" && err != nil:
			t.Errorf("%s: %v", row.name, err)
		case row.reason == "":
		case !errors.As(err, &no) || no.Reason != row.reason || !strings.Contains(no.Message, row.want):
			t.Errorf("%s: %v, want %s %q", row.name, err, row.reason, row.want)
		case len([]rune(no.Message)) > maxMessage || !reflect.DeepEqual(r, Request{}):
			t.Errorf("%s: %d characters of %q, and %+v", row.name, len(no.Message), no.Message, r)
		}
	}
}

func TestAppendRequestRefusesItsOwnMistakes(t *testing.T) {
	r := request()
	r.Connection = ""
	if line, err := AppendRequest([]byte("x"), r); err == nil || string(line) != "x" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestAnswerRoundTrip(t *testing.T) {
	a := Answer{Version: version.Version, PublicKey: agentKey, PodUID: "3f1c6f5e-1"}
	line, err := AppendAnswer(nil, Answer{PublicKey: agentKey, PodUID: "3f1c6f5e-1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseAnswer(line); err != nil || got != a {
		t.Errorf("%+v, %v", got, err)
	}

	line, err = AppendAnswer(nil, a, &Refusal{Conflict, "address 245.1.2.4 belongs to another\nnode"})
	if err != nil || strings.Contains(string(line), agentKey.String()) || strings.Contains(string(line), "3f1c") {
		t.Fatalf("%s, %v", line, err)
	}
	var no *Refusal
	if _, err := ParseAnswer(line); !errors.As(err, &no) || no.Reason != Conflict || no.Message != "address 245.1.2.4 belongs to another node" {
		t.Errorf("%v", err)
	}
}

func TestParseAnswer(t *testing.T) {
	for _, row := range []struct{ name, line, reason, want string }{
		{"another protocol", `{"protocol":2,"version":"0.1.0"}`, Incompatible, "protocol 2"},
		{"a new reason", `{"protocol":1,"version":"0.1.0","reason":"TooHot","error":"it burns"}`, Failed, "it burns"},
		{"no reason", `{"protocol":1,"version":"0.1.0","error":"it burns"}`, Failed, "it burns"},
		{"a terminal's bell", `{"protocol":1,"version":"0.1.0","reason":"Invalid","error":"ding\u0007dong\u202e"}`, Invalid, "ding dong "},
		{"a long story", `{"protocol":1,"version":"0.1.0","reason":"Invalid","error":"` + strings.Repeat("ä", 1000) + `"}`, Invalid, strings.Repeat("ä", 511) + "…"},
		{"no key", `{"protocol":1,"version":"0.1.0"}`, Malformed, "publicKey"},
		{"a strange pod", `{"protocol":1,"version":"0.1.0","publicKey":"` + agentKey.String() + `","podUID":"a b"}`, Malformed, "podUID"},
		{"too long", `{"protocol":1,"version":"0.1.0","x":"` + strings.Repeat("y", MaxAnswer) + `"}`, Malformed, "more than 4096 bytes"},
		{"a request of HTTP", "HTTP/1.1 400 Bad Request", Malformed, "JSON"},
	} {
		var no *Refusal
		if _, err := ParseAnswer([]byte(row.line)); !errors.As(err, &no) || no.Reason != row.reason || !strings.Contains(no.Message, row.want) {
			t.Errorf("%s: %v, want %s %q", row.name, err, row.reason, row.want)
		}
	}
}

// FuzzParse reads whatever comes as a request and as an answer. What is accepted is in bounds and survives
// being written and read again.
func FuzzParse(f *testing.F) {
	line, err := AppendRequest(nil, request())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	line, _ = AppendAnswer(nil, Answer{PublicKey: agentKey, PodUID: "uid"}, nil)
	f.Add(line)
	line, _ = AppendAnswer(nil, Answer{}, &Refusal{Conflict, "no"})
	f.Add(line)
	f.Add([]byte(`{"protocol":1,"version":"0.1.0","connection":"c","bye":true,"node":["::ffff:1.2.3.4"],"publicKey":"` + nodeKey.String() + `"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var no *Refusal
		if r, err := ParseRequest(line); err == nil {
			again, err := AppendRequest(nil, r)
			if err != nil {
				t.Fatalf("%+v cannot be written: %v", r, err)
			}
			if got, err := ParseRequest(again); err != nil || !reflect.DeepEqual(got, r) {
				t.Fatalf("%+v became %+v, %v", r, got, err)
			}
		} else if !errors.As(err, &no) || len([]rune(no.Message)) > maxMessage || strings.ContainsAny(no.Message, "\n\x1b") {
			t.Fatalf("error %q", err)
		}
		if a, err := ParseAnswer(line); err == nil {
			again, err := AppendAnswer(nil, a, nil)
			if err != nil {
				t.Fatalf("%+v cannot be written: %v", a, err)
			}
			if got, err := ParseAnswer(again); err != nil || got != a {
				t.Fatalf("%+v became %+v, %v", a, got, err)
			}
		} else if !errors.As(err, &no) || len([]rune(no.Message)) > maxMessage || strings.ContainsAny(no.Message, "\n\x1b") {
			t.Fatalf("error %q", err)
		}
	})
}
