package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// loopback are the addresses at which port-forwards arrive: runtimes try one and then the other.
var loopback = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// listen listens at port on the loopback of both families, or of one where the pod has no other; what is the
// port's use, for errors.
func listen(what string, port uint16) (out []net.Listener, err error) {
	for _, a := range loopback {
		l, err := net.Listen("tcp", netip.AddrPortFrom(a, port).String())
		switch {
		case err == nil:
			out = append(out, l)
		case errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT):
		case errors.Is(err, syscall.EADDRINUSE):
			closeAll(out)
			return nil, fmt.Errorf("listen for %s: %w: another agent serves this pod, or a program of the pod has port %d", what, err, port)
		default:
			closeAll(out)
			return nil, fmt.Errorf("listen for %s: %w", what, err)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("listen for %s: this pod has no loopback address", what)
	}
	return out, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}
