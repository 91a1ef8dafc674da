package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Layout of the kernel's struct inet_diag_req_v2, inet_diag_msg and inet_diag_sockid
// (uapi/linux/inet_diag.h). The last is part of both and names one socket, its cookie included.
const (
	diagRequestSize = 56
	diagRequestID   = 8
	diagMessageSize = 72
	diagMessageID   = 4
	diagIDSize      = 48
	diagIDSource    = 4 // in the ID, after both ports
	diagIDTarget    = 20
)

// diagStates are the TCP states that have two ends: all of enum tcp_state but TCP_TIME_WAIT, TCP_CLOSE
// and TCP_LISTEN. A connected UDP socket is "established".
const diagStates = 0xfff &^ (1<<6 | 1<<7 | 1<<10)

// diagHandshake are TCP_SYN_SENT and TCP_SYN_RECV.
const diagHandshake = 1<<2 | 1<<3

// DestroySockets ends sockets. It asks the kernel for all of them and picks here, by far the smaller
// part of the work.
func (h *linuxHost) DestroySockets(which Sockets) (int, error) {
	destroyed, failed := 0, error(nil)
	protocols, states := []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}, uint32(diagStates)
	if which.Established {
		protocols, states = protocols[:1], diagStates&^diagHandshake
	}
	for _, protocol := range protocols {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			n, err := destroyKind(diagKind{family, protocol, states}, which)
			destroyed, failed = destroyed+n, errors.Join(failed, err) // a kernel may have one and not the other
		}
	}
	return destroyed, failed
}

// diagKind are the sockets of one family and protocol in some states, as a mask.
type diagKind struct {
	family, protocol uint8
	states           uint32
}

// destroyKind ends those sockets of a kind.
func destroyKind(kind diagKind, which Sockets) (destroyed int, failed error) {
	sockets, failed := listSockets(kind, which)
	for _, id := range sockets {
		ok, err := destroySocket(kind, id)
		if failed = errors.Join(failed, err); ok {
			destroyed++
		}
	}
	return destroyed, failed
}

// listSockets returns the IDs of those sockets of a kind.
func listSockets(kind diagKind, which Sockets) ([][]byte, error) {
	out, err := again(func() (ids [][]byte, err error) {
		r := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		r.AddRawData(diagRequest(kind, nil))
		err = r.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(m []byte) bool {
			if id := diagID(m); id != nil && between(m[0], id, which) {
				ids = append(ids, slices.Clone(id))
			}
			return true
		})
		return ids, err
	})
	switch {
	case errors.Is(err, unix.ENOENT): // a kernel without diagnosis of this protocol, or without IPv6
		return nil, fmt.Errorf("list the sockets of protocol %d: %w: the kernel has no inet_diag for it", kind.protocol, ErrUnsupported)
	case err != nil:
		return nil, fmt.Errorf("list the sockets of protocol %d: %w", kind.protocol, err)
	}
	return out, nil
}

// diagRequest returns an inet_diag_req_v2 for one socket or, without an ID, for all.
func diagRequest(kind diagKind, id []byte) []byte {
	r := make([]byte, diagRequestSize)
	r[0], r[1] = kind.family, kind.protocol
	binary.NativeEndian.PutUint32(r[4:], kind.states)
	copy(r[diagRequestID:], id)
	return r
}

// diagID returns the ID in an inet_diag_msg, nil if it is cut short.
func diagID(m []byte) []byte {
	if len(m) < diagMessageSize {
		return nil
	}
	return m[diagMessageID : diagMessageID+diagIDSize]
}

// between reports whether the socket speaks between the right ends. An IPv6 socket may
// speak IPv4 (RFC 3493, section 3.7).
func between(family uint8, id []byte, which Sockets) bool {
	size := 4
	if family == unix.AF_INET6 {
		size = 16
	}
	source, _ := netip.AddrFromSlice(id[diagIDSource : diagIDSource+size])
	target, _ := netip.AddrFromSlice(id[diagIDTarget : diagIDTarget+size])
	return slices.Contains(which.Sources, source.Unmap()) &&
		slices.ContainsFunc(which.Targets, func(p netip.Prefix) bool { return p.Contains(target.Unmap()) })
}

// destroySocket ends one socket; false means that it had ended already.
func destroySocket(kind diagKind, id []byte) (bool, error) {
	r := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	r.AddRawData(diagRequest(kind, id))
	_, err := r.Execute(unix.NETLINK_INET_DIAG, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return false, fmt.Errorf("end a socket: %w: the kernel was built without CONFIG_INET_DIAG_DESTROY", ErrUnsupported)
	case err != nil:
		return false, fmt.Errorf("end a socket: %w", err)
	}
	return true, nil
}
