package enrol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/version"
)

// Protocol is the version of the language that this build speaks.
const Protocol = 1

// Bounds of one line in bytes, the newline included.
const (
	MaxRequest = 32 << 10
	MaxAnswer  = 4 << 10
)

// MaxTwins is how many twins a request may ask for.
const MaxTwins = 64

const (
	maxVersion    = 64  // bytes of a version
	maxConnection = 253 // bytes of a connection's name, as of an object of Kubernetes
	maxUID        = 128 // bytes of a pod's UID
	maxMessage    = 512 // characters of a refusal
)

// Twin says that Virtual stands 1:1 for Real: two masked prefixes of one family and length.
type Twin struct {
	Real    netip.Prefix `json:"real"`
	Virtual netip.Prefix `json:"virtual"`
}

// Request is everything a node wants of an agent.
type Request struct {
	// Version of the node's program; empty in a request to be sent means this build's.
	Version string `json:"version"`
	// Connection is the same for as long as the connection lives, also when the node starts anew with another
	// key, and no other connection of anybody has it: the name of its Peer.
	Connection string `json:"connection"`
	// PublicKey is the node's WireGuard key.
	PublicKey wgtypes.Key `json:"-"`
	// Bye ends what the node has here. Nothing but Connection and PublicKey counts then.
	Bye bool `json:"bye,omitempty"`
	// Node are the workstation's overlay addresses, one of each family at most, IPv4 first.
	Node []netip.Addr `json:"node,omitempty"`
	// Agent[i] is the agent's own address as seen from Node[i], of the same family.
	Agent []netip.Addr `json:"agent,omitempty"`
	// Twins are the prefixes that the node wants to reach, at most MaxTwins.
	Twins []Twin `json:"twins,omitempty"`
}

// Answer is what an agent says of itself.
type Answer struct {
	// Version of the agent's program; empty in an answer to be sent means this build's.
	Version string `json:"version"`
	// PublicKey is the agent's WireGuard key, made in memory by each process.
	PublicKey wgtypes.Key `json:"-"`
	// PodUID names the pod; "" where the agent was not told.
	PodUID string `json:"podUID,omitempty"`
}

// Reasons of a [Refusal]. A node takes one it does not know for Failed.
const (
	Malformed    = "Malformed"    // the line is no request
	Incompatible = "Incompatible" // the two programs cannot work together
	Invalid      = "Invalid"      // the agent serves no such addresses or twins, whoever asks
	Conflict     = "Conflict"     // another node has the key or an address
	TooManyNodes = "TooManyNodes" // there is no room for another node
	Stopping     = "Stopping"     // this agent ends; another one may be there soon
	Failed       = "Failed"       // it is the agent's fault
)

// Refusal is an agent's no. It is an error; use errors.As.
type Refusal struct {
	Reason  string // one of the constants above
	Message string // a sentence for people
}

func (r *Refusal) Error() string { return r.Message }

// refuse makes a Refusal.
func refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: sentence(fmt.Sprintf(format, args...))}
}

// The lines: keys are text, and the protocol comes first.
type (
	requestLine struct {
		Protocol int `json:"protocol"`
		Request
		PublicKey string `json:"publicKey"`
	}
	answerLine struct {
		Protocol int `json:"protocol"`
		Answer
		PublicKey string `json:"publicKey,omitempty"`
		Reason    string `json:"reason,omitempty"`
		Error     string `json:"error,omitempty"`
	}
)

// AppendRequest appends the line of r to b. An error matches [Refusal] and says what is wrong with r.
func AppendRequest(b []byte, r Request) ([]byte, error) {
	if r.Version == "" {
		r.Version = version.Version
	}
	r = r.normal()
	if err := r.check(); err != nil {
		return b, err
	}
	return appendLine(b, requestLine{Protocol: Protocol, Request: r, PublicKey: r.PublicKey.String()}, MaxRequest)
}

// ParseRequest reads a line with or without its newline. Errors match [Refusal], with the reasons Malformed
// and Incompatible; what a request asks for is looked at only as far as its form goes.
func ParseRequest(line []byte) (Request, error) {
	if err := checkProtocol(line, MaxRequest); err != nil {
		return Request{}, err
	}
	var l requestLine
	if err := json.Unmarshal(line, &l); err != nil {
		return Request{}, refuse(Malformed, "request: %v", err)
	}
	key, err := parseKey(l.PublicKey)
	if err != nil {
		return Request{}, err
	}
	r := l.Request.normal()
	r.PublicKey = key
	if err := r.check(); err != nil {
		return Request{}, err
	}
	return r, nil
}

// AppendAnswer appends the line of a to b, or if no is not nil that of a refusal.
func AppendAnswer(b []byte, a Answer, no *Refusal) ([]byte, error) {
	if a.Version == "" {
		a.Version = version.Version
	}
	l := answerLine{Protocol: Protocol, Answer: a}
	if no != nil {
		l.PodUID, l.Reason, l.Error = "", no.Reason, sentence(no.Message)
	} else {
		l.PublicKey = a.PublicKey.String()
	}
	return appendLine(b, l, MaxAnswer)
}

// ParseAnswer reads a line with or without its newline. An error that matches [Refusal] is the agent's,
// except that Malformed and Incompatible may also be found here.
func ParseAnswer(line []byte) (Answer, error) {
	if err := checkProtocol(line, MaxAnswer); err != nil {
		return Answer{}, err
	}
	var l answerLine
	if err := json.Unmarshal(line, &l); err != nil {
		return Answer{}, refuse(Malformed, "answer: %v", err)
	}
	if l.Reason != "" || l.Error != "" {
		return Answer{}, &Refusal{Reason: known(l.Reason), Message: sentence(l.Error)}
	}
	a := l.Answer
	var err error
	if a.PublicKey, err = parseKey(l.PublicKey); err != nil {
		return Answer{}, err
	}
	if !printable(a.PodUID, maxUID) {
		return Answer{}, refuse(Malformed, "podUID: not a UID")
	}
	return a, nil
}

// appendLine appends v as one line of at most limit bytes.
func appendLine(b []byte, v any, limit int) ([]byte, error) {
	text, err := json.Marshal(v)
	if err == nil && len(text)+1 > limit {
		err = fmt.Errorf("%d bytes long, at most %d", len(text)+1, limit)
	}
	if err != nil {
		return b, refuse(Malformed, "%v", err)
	}
	return append(append(b, text...), '\n'), nil
}

// checkProtocol looks at what every protocol has in common, before anything that a later one may have changed.
func checkProtocol(line []byte, limit int) error {
	var l struct {
		Protocol int    `json:"protocol"`
		Version  string `json:"version"`
	}
	if len(line) > limit {
		return refuse(Malformed, "a line of more than %d bytes", limit)
	}
	if text := bytes.TrimSpace(line); len(text) == 0 || text[0] != '{' {
		return refuse(Malformed, "not a JSON object")
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return refuse(Malformed, "not of any protocol: %v", err)
	}
	if !printable(l.Version, maxVersion) {
		return refuse(Malformed, "version: not a version")
	}
	if l.Protocol != Protocol {
		return refuse(Incompatible, "enrolment protocol %d of version %q: version %s speaks %d", l.Protocol, l.Version, version.Version, Protocol)
	}
	if err := version.Compatible(version.Version, l.Version); err != nil {
		return refuse(Incompatible, "%v", err)
	}
	return nil
}

func parseKey(text string) (wgtypes.Key, error) {
	const encoded = 44 // base64 of 32 bytes
	if len(text) != encoded {
		return wgtypes.Key{}, refuse(Malformed, "publicKey: %d characters, a WireGuard key has %d", len(text), encoded)
	}
	key, err := wgtypes.ParseKey(text)
	if err != nil {
		return wgtypes.Key{}, refuse(Malformed, "publicKey: not base64 of 32 bytes")
	}
	if key == (wgtypes.Key{}) {
		return wgtypes.Key{}, refuse(Malformed, "publicKey: all zero, no key of anybody")
	}
	return key, nil
}

// normal returns r with IPv4 first, and nothing that does not count in a bye.
func (r Request) normal() Request {
	if r.Bye {
		return Request{Version: r.Version, Connection: r.Connection, PublicKey: r.PublicKey, Bye: true}
	}
	if len(r.Node) == 2 && len(r.Agent) == 2 && r.Node[0].Is6() {
		r.Node = []netip.Addr{r.Node[1], r.Node[0]}
		r.Agent = []netip.Addr{r.Agent[1], r.Agent[0]}
	}
	return r
}

// check returns what is wrong with the form of r.
func (r Request) check() error {
	switch {
	case r.Connection == "" || !printable(r.Connection, maxConnection):
		return refuse(Malformed, "connection: accepted are 1 to %d visible ASCII characters", maxConnection)
	case r.PublicKey == wgtypes.Key{}:
		return refuse(Malformed, "publicKey: all zero, no key of anybody")
	case r.Bye:
		return nil
	case len(r.Twins) > MaxTwins:
		return refuse(Malformed, "twins: %d, at most %d", len(r.Twins), MaxTwins)
	}
	if err := r.checkAddresses(); err != nil {
		return err
	}
	for _, t := range r.Twins {
		if err := t.check(); err != nil {
			return err
		}
	}
	return nil
}

func (r Request) checkAddresses() error {
	if len(r.Node) < 1 || len(r.Node) > 2 || len(r.Agent) != len(r.Node) {
		return refuse(Malformed, "%d node and %d agent addresses: accepted are one of each family at most, and as many of each", len(r.Node), len(r.Agent))
	}
	for i, n := range r.Node {
		a := r.Agent[i]
		if !plain(n) || !plain(a) || n.Is4() != a.Is4() || n == a {
			return refuse(Malformed, "node address %v with agent address %v: accepted are two plain ones of one family", n, a)
		}
	}
	if len(r.Node) == 2 && r.Node[0].Is4() == r.Node[1].Is4() {
		return refuse(Malformed, "node addresses %v and %v are of one family", r.Node[0], r.Node[1])
	}
	return nil
}

// plain reports whether a is an ordinary address, not one of IPv4 in the form of IPv6, nor one with a zone.
func plain(a netip.Addr) bool { return a.IsValid() && !a.Is4In6() && a.Zone() == "" }

// check returns what is wrong with the form of t.
func (t Twin) check() error {
	for _, p := range []netip.Prefix{t.Real, t.Virtual} {
		if !p.IsValid() || p.Addr().Is4In6() || p != p.Masked() {
			return refuse(Malformed, "twins: %v is no plain address prefix without host bits", p)
		}
	}
	if t.Real.Addr().Is4() != t.Virtual.Addr().Is4() || t.Real.Bits() != t.Virtual.Bits() {
		return refuse(Malformed, "twins: %v and %v are not of the same family and length", t.Real, t.Virtual)
	}
	return nil
}

// printable reports whether text has at most limit bytes, all of them visible ASCII.
func printable(text string, limit int) bool {
	return len(text) <= limit && strings.IndexFunc(text, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
}

// sentence makes text of a stranger fit for a terminal: one line, bounded, nothing that controls.
func sentence(text string) string {
	clean := []rune(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, text))
	if len(clean) > maxMessage {
		clean = append(clean[:maxMessage-1], '…')
	}
	return string(clean)
}

// known returns reason, or Failed for one that this build does not know.
func known(reason string) string {
	switch reason {
	case Malformed, Incompatible, Invalid, Conflict, TooManyNodes, Stopping:
		return reason
	}
	return Failed
}
