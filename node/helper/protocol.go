package helper

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/culvert-dev/culvert/dns/hostdns"
	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/policy"
)

// The protocol on the socketpair: each message is a length (4 bytes, big endian, of what follows) and
// one JSON object. The user half sends requests and gets one reply to each, in order; the helper also
// sends events. Descriptors travel with the length of the reply that names them in files. Both halves
// are the same program, so the version only has to be the same.

const (
	protocolVersion = 1
	// maxMessage bounds a message in bytes: 4096 routes fit with room to spare.
	maxMessage = 1 << 20
	// maxLast bounds the last status of a connection in bytes.
	maxLast = 256 << 10
)

// Types of requests.
const (
	typeHello = "hello"
	typeOpen  = "open"
	typeApply = "apply"
	typeReset = "reset"
	typeIPsec = "ipsec"
	typeClose = "close"
)

// request is what the user half sends.
type request struct {
	Version int            `json:"version"`
	ID      uint64         `json:"id"`
	Type    string         `json:"type"`
	Open    *OpenRequest   `json:"open,omitempty"`
	State   *hostnet.State `json:"state,omitempty"`
	// Reset goes with reset: at least one prefix and at most maxRoutes.
	Reset []netip.Prefix `json:"reset,omitempty"`
	// Established may go with reset.
	Established bool `json:"established,omitempty"`
	// Last goes with close: a JSON object of at most maxLast bytes for Paths.LastStatus.
	Last json.RawMessage `json:"last,omitempty"`
}

// OpenRequest asks for the interface.
type OpenRequest struct {
	// Interface is culvertN, or "" to let the helper choose: culvert0 for the connection "default",
	// the first free one from culvert1 on for any other.
	Interface string `json:"interface,omitempty"`
	// MTU in bytes of the inner IP packet, 1280 to 9000; from 576 without IPv6.
	MTU int `json:"mtu"`
	// Addresses of the interface, overlay addresses as /32 and /128, one per family.
	Addresses []netip.Prefix `json:"addresses"`
}

// response is what the helper sends: a reply to the request of the same ID, or an event with ID 0.
type response struct {
	Version int     `json:"version"`
	ID      uint64  `json:"id,omitempty"`
	Error   *Error  `json:"error,omitempty"`
	Hello   *Hello  `json:"hello,omitempty"`
	Opened  *opened `json:"opened,omitempty"`
	// Reset is the number of sockets ended, also beside an Error.
	Reset int    `json:"reset,omitempty"`
	IPsec *IPsec `json:"ipsec,omitempty"`
	Event *Event `json:"event,omitempty"`
	// Files say what the descriptors that came along are, in their order.
	Files []fileRole `json:"files,omitempty"`
}

// Hello is what the helper says about itself.
type Hello struct {
	// Version of the helper's build.
	Version string `json:"version"`
	// Name is the connection's.
	Name string `json:"name"`
	// HelperPID and GuardPID are process ids; GuardPID is 0 for a moment after a guard died.
	HelperPID int `json:"helperPID"`
	GuardPID  int `json:"guardPID"`
}

// opened is the answer to open, without the descriptors.
type opened struct {
	Interface string         `json:"interface"`
	Addresses []netip.Prefix `json:"addresses"`
	Host      hostdns.Config `json:"host"`
	Earlier   []Earlier      `json:"earlier,omitempty"`
}

// Event is something the helper noticed.
type Event struct {
	// Host is the host's own resolver configuration, when that has changed; its servers are the
	// upstreams now.
	Host *hostdns.Config `json:"host,omitempty"`
	// Earlier are the connections that began earlier, when these or their domains have changed; the list
	// may be empty.
	Earlier *[]Earlier `json:"earlier,omitempty"`
	// Contested says that another program fights for the host's network, or that it no longer does.
	Contested *Contested `json:"contested,omitempty"`
	// IPsecChanged says that [Client.IPsec] has another answer than the last time.
	IPsecChanged bool `json:"ipsecChanged,omitempty"`
}

// IPsec are the IPsec policies of the host, which only root may read.
type IPsec struct {
	Policies []policy.IPsecPolicy `json:"policies,omitempty"`
	// Warnings name what could not be read, for policy.Facts.
	Warnings []string `json:"warnings,omitempty"`
}

// Contested is a fight with another program which the helper does not join in: it tries again every
// RetryEvery, until nothing was undone for as long. One of each kind at most is under way.
type Contested struct {
	Kind Contest `json:"kind"`
	// What the other program does, to follow "another program": "keeps undoing ...".
	What string `json:"what"`
	// Since is when the helper gave way first.
	Since time.Time `json:"since"`
	// RetryEvery is the pause between two tries.
	RetryEvery time.Duration `json:"retryEvery"`
	// Over says that the fight has ended, and everything is as asked for.
	Over bool `json:"over,omitempty"`
}

// Contest is a kind of fight.
type Contest string

const (
	// ContestUndone: something of ours is removed or changed again and again. Between two tries it is
	// as the other program leaves it.
	ContestUndone Contest = "undone"
	// ContestOvertaken: a rule of ours was asked to move further forward again and again, as one does
	// whom another program overtakes each time. Between two tries it stays behind the other.
	ContestOvertaken Contest = "overtaken"
)

// fileRole says what a descriptor is.
type fileRole string

const (
	roleTUN    fileRole = "tun"
	roleUAPI   fileRole = "uapi"
	roleDNSUDP fileRole = "dns-udp"
	roleDNSTCP fileRole = "dns-tcp"
)

// Code says what kind of failure an [Error] is.
type Code string

const (
	// CodeRefused: the request breaks the form or the limits; nothing was changed.
	CodeRefused Code = "refused"
	// CodeForeign: something another program owns is in the way.
	CodeForeign Code = "foreign"
	// CodeFailed: the system said no.
	CodeFailed Code = "failed"
)

// Error is a failure the helper reported. It matches [ErrRefused] or hostnet.ErrForeign by its code.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// ErrRefused is matched by an [Error] with [CodeRefused].
var ErrRefused = errors.New("refused by the helper")

func (e *Error) Error() string { return e.Message }

// Is makes errors.Is work across the socket.
func (e *Error) Is(target error) bool {
	return target == ErrRefused && e.Code == CodeRefused || target == hostnet.ErrForeign && e.Code == CodeForeign
}

// toError gives err the form in which it travels.
func toError(err error) *Error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	case errors.Is(err, hostnet.ErrForeign):
		return &Error{CodeForeign, err.Error()}
	}
	return &Error{CodeFailed, err.Error()}
}

// refuse returns an error for a request that breaks the form or the limits.
func refuse(format string, args ...any) error {
	return &Error{CodeRefused, fmt.Sprintf(format, args...)}
}

// encode renders a message with its length in front.
func encode(message any) ([]byte, error) {
	body, err := json.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode a message: %w", err)
	}
	if len(body) > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes is longer than %d", len(body), maxMessage)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...), nil
}

// readRequest reads one request from the partner. Any error means that the partner is gone or cannot
// be followed any more; io.EOF is an orderly end.
func readRequest(r io.Reader) (request, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return request{}, err
	}
	body, err := readBody(r, binary.BigEndian.Uint32(head[:]))
	if err != nil {
		return request{}, err
	}
	return parseRequest(body)
}

// readBody reads the n bytes of a message.
func readBody(r io.Reader, n uint32) ([]byte, error) {
	if n > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes is longer than %d", n, maxMessage)
	}
	var body bytes.Buffer // grows with what really comes
	if _, err := io.CopyN(&body, r, int64(n)); err != nil {
		return nil, fmt.Errorf("read a message of %d bytes: %w", n, err)
	}
	return body.Bytes(), nil
}

// parseRequest decodes a request strictly: known fields only, one object, the parts its type needs.
func parseRequest(body []byte) (request, error) {
	var req request
	if err := decodeStrict(body, &req); err != nil {
		return request{}, fmt.Errorf("decode a request: %w", err)
	}
	if req.Version != protocolVersion {
		return request{}, fmt.Errorf("request of protocol version %d, this helper speaks %d", req.Version, protocolVersion)
	}
	wantOpen, wantState, wantReset := req.Type == typeOpen, req.Type == typeApply, req.Type == typeReset
	switch req.Type {
	case typeHello, typeOpen, typeApply, typeReset, typeIPsec, typeClose:
	default:
		return request{}, fmt.Errorf("request of unknown type %q", req.Type)
	}
	if wantOpen != (req.Open != nil) || wantState != (req.State != nil) || wantReset != (req.Reset != nil) ||
		wantReset && len(req.Reset) == 0 || req.Established && !wantReset || req.Last != nil && !isLast(req) {
		return request{}, fmt.Errorf("request %q has the wrong parts", req.Type)
	}
	return req, nil
}

// isLast reports whether a request may carry what is in its Last.
func isLast(req request) bool {
	return req.Type == typeClose && len(req.Last) <= maxLast && bytes.HasPrefix(req.Last, []byte("{"))
}

// decodeStrict decodes exactly one JSON value without unknown fields.
func decodeStrict(body []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the object")
	}
	return nil
}
