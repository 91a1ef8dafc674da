package frame

import (
	"encoding/json"
	"fmt"
)

// Protocol is the version of the framing that this build speaks.
const Protocol = 1

// Roles of the two ends of a stream.
const (
	RoleNode    = "node"
	RoleGateway = "gateway"
)

// maxVersionLen bounds the version text of a stranger, in bytes.
const maxVersionLen = 64

// Hello is the first thing each side says. Unknown JSON keys are ignored.
type Hello struct {
	Version  string `json:"version"`       // of the program, semver without a leading v
	Protocol int    `json:"protocol"`      // of the framing; see Protocol
	MTU      int    `json:"mtu,omitempty"` // largest inner IP packet the sender wants, in bytes; 0: no wish
	Role     string `json:"role"`          // RoleNode or RoleGateway
}

// AppendHello appends the hello frame to b.
func AppendHello(b []byte, h Hello) ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return b, fmt.Errorf("hello: %w", err)
	}
	if err := checkLength(TypeHello, len(text)); err != nil {
		return b, fmt.Errorf("hello: %w", err)
	}
	return Append(b, TypeHello, text), nil
}

// ParseHello reads the payload of a hello frame. Errors match ErrMalformed.
func ParseHello(payload []byte) (Hello, error) {
	var h Hello
	if err := json.Unmarshal(payload, &h); err != nil {
		return Hello{}, fmt.Errorf("%w: hello: %v", ErrMalformed, err)
	}
	switch {
	case len(h.Version) > maxVersionLen:
		return Hello{}, fmt.Errorf("%w: hello: version of %d bytes, at most %d", ErrMalformed, len(h.Version), maxVersionLen)
	case h.MTU < 0 || h.MTU > MaxPacket:
		return Hello{}, fmt.Errorf("%w: hello: mtu %d is not within 0 and %d", ErrMalformed, h.MTU, MaxPacket)
	case h.Role != RoleNode && h.Role != RoleGateway:
		return Hello{}, fmt.Errorf("%w: hello: role %.20q is neither %s nor %s", ErrMalformed, h.Role, RoleNode, RoleGateway)
	}
	return h, nil
}
