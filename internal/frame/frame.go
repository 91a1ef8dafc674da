package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Type says what a frame's payload is.
type Type uint8

// The frame types of protocol 1. Zero is not a type.
const (
	TypeHello     Type = 1 // JSON of Hello; first frame each way
	TypeData      Type = 2 // one WireGuard packet
	TypeEcho      Type = 3 // 8-byte identifier, to be sent back
	TypeEchoReply Type = 4 // the identifier of an echo
	TypeAck       Type = 5 // 64 bits, big endian: payload bytes of all data frames taken off the stream so far
	TypeBye       Type = 6 // UTF-8 text: why the sender closes the stream
)

// Sizes in bytes.
const (
	HeaderLen = 3
	// MaxPacket is the longest payload of a data frame. It leaves room for a jumbo packet and makes
	// the buffers of both sides small and fixed.
	MaxPacket = 32<<10 - 128
	// MaxControl is the longest payload of any other known frame.
	MaxControl = 4 << 10
	// NumberLen is the payload length of echo, echo-reply and ack.
	NumberLen = 8
)

// Errors of a stream that is not of this protocol. Nothing after them can be parsed.
var (
	ErrTooLong   = errors.New("frame is longer than its type allows")
	ErrMalformed = errors.New("malformed frame")
)

// Frame is one frame of a known type. Payload is a part of the buffer that was parsed.
type Frame struct {
	Type    Type
	Payload []byte
}

// Number returns the payload of an echo, echo-reply or ack. Call it for those types only: the parser
// has checked their length.
func (f Frame) Number() uint64 { return binary.BigEndian.Uint64(f.Payload) }

// PutHeader writes the header of a frame of n payload bytes to b, which has room for HeaderLen bytes.
func PutHeader(b []byte, t Type, n int) {
	binary.BigEndian.PutUint16(b, uint16(n))
	b[2] = byte(t)
}

// Append appends a frame to b. The payload is no longer than its type allows.
func Append(b []byte, t Type, payload []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, byte(t))
	return append(b, payload...)
}

// AppendNumber appends an echo, echo-reply or ack to b.
func AppendNumber(b []byte, t Type, n uint64) []byte {
	b = append(b, 0, NumberLen, byte(t))
	return binary.BigEndian.AppendUint64(b, n)
}

// Parser cuts a stream into frames. The zero value is ready; one Parser serves one stream.
type Parser struct {
	skip int // payload bytes of an unknown frame still to come
}

// Next returns the first frame of b and how many bytes of b it used up, skipped frames included. A zero
// Type says that b holds no further whole frame: the caller keeps b[n:], at most HeaderLen+MaxPacket
// bytes, and calls again with more bytes behind it. An error (ErrTooLong, ErrMalformed) is final.
func (p *Parser) Next(b []byte) (f Frame, n int, err error) {
	for {
		step := min(p.skip, len(b)-n)
		p.skip -= step
		n += step
		rest := b[n:]
		if len(rest) < HeaderLen {
			return Frame{}, n, nil
		}
		length, t := int(binary.BigEndian.Uint16(rest)), Type(rest[2])
		if t == 0 || t > TypeBye {
			n += HeaderLen
			p.skip = length
			continue
		}
		if err := checkLength(t, length); err != nil {
			return Frame{}, n, err
		}
		if len(rest) < HeaderLen+length {
			return Frame{}, n, nil
		}
		return Frame{t, rest[HeaderLen : HeaderLen+length]}, n + HeaderLen + length, nil
	}
}

// checkLength reports whether a frame of a known type may have this payload length.
func checkLength(t Type, length int) error {
	limit := MaxControl
	switch t {
	case TypeData:
		limit = MaxPacket
	case TypeEcho, TypeEchoReply, TypeAck:
		if length != NumberLen {
			return fmt.Errorf("%w: type %d with %d bytes instead of %d", ErrMalformed, t, length, NumberLen)
		}
	}
	if length > limit {
		return fmt.Errorf("%w: type %d with %d bytes, at most %d", ErrTooLong, t, length, limit)
	}
	return nil
}
