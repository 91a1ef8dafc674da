package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"time"
)

// streamPatience is the time one server gets to answer by TCP before the next is asked.
const streamPatience = 3 * time.Second

// exchangeTCP asks the servers msg by TCP, one after the other, and returns the first usable response, or else one
// that is not.
func (g *group) exchangeTCP(ctx context.Context, msg []byte) ([]byte, error) {
	order, _ := g.order()
	if len(order) == 0 {
		return nil, errNoServer
	}
	ctx, cancel := g.limit(ctx, g.timing.total)
	defer cancel()
	r := round{group: g}
	for _, s := range order {
		response, err := s.askTCP(ctx, msg)
		if err != nil {
			r.note(s, err) // not a failure: it may well answer by UDP
			continue
		}
		if r.accept(s, response) != nil {
			return response, nil
		}
	}
	return r.outcome()
}

// askTCP asks s over a connection of its own.
func (s *server) askTCP(ctx context.Context, msg []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, streamPatience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	msg = slices.Clone(msg)
	rand.Read(msg[:2])
	if _, err := conn.Write(frame(nil, msg)); err != nil {
		return nil, err
	}
	response, err := readFrame(conn)
	if err != nil {
		return nil, err
	}
	if !responds(response, msg) {
		return nil, errStray
	}
	return response, nil
}

// frame appends msg with the length that precedes it on a stream (RFC 1035 section 4.2.2).
func frame(dst, msg []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(msg)))
	return append(dst, msg...)
}

// readFrame reads one message from a stream.
func readFrame(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}
