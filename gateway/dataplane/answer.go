package dataplane

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/culvert-dev/culvert/internal/packet"
)

// answer is how a failure to reach a destination is told to the client, so that its connect fails
// with the errno that the gateway itself saw.
type answer struct {
	result string // for the metrics
	silent bool
	reset  bool          // by TCP RST
	reason packet.Reason // else by this ICMP error
}

// answerTo finds the answer to the failure of a dial, or of a datagram.
func answerTo(err error) answer {
	var netErr net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return answer{result: resultAborted, silent: true}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return answer{result: resultTimeout, reason: packet.HostUnreachable}
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return answer{result: resultError, reset: true, reason: packet.HostUnreachable}
	}
	switch errno {
	case syscall.ECONNREFUSED, syscall.ECONNRESET:
		return answer{result: resultRefused, reset: true, reason: packet.PortUnreachable}
	case syscall.EHOSTUNREACH, syscall.ETIMEDOUT:
		return answer{result: resultUnreachable, reason: packet.HostUnreachable}
	case syscall.ENETUNREACH:
		return answer{result: resultUnreachable, reason: packet.NetUnreachable}
	case syscall.ENOPROTOOPT:
		return answer{result: resultUnreachable, reason: packet.ProtocolUnreachable}
	case syscall.EACCES, syscall.EPERM: // a packet filter, or a broadcast address
		return answer{result: resultDenied, reason: packet.Prohibited}
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.EADDRNOTAVAIL:
		return answer{result: resultLimit, reset: true, reason: packet.HostUnreachable}
	}
	return answer{result: resultError, reset: true, reason: packet.HostUnreachable}
}
