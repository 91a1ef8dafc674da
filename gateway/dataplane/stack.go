package dataplane

import (
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const nicID = 1

// Settings of the stack's TCP.
const (
	// timeWait is short because the tunnel delivers no old duplicates (WireGuard drops replays), so
	// all it must outlast is a lost last ACK. The stack has no listening sockets, and it answers a
	// SYN in TIME_WAIT only for those: a long TIME_WAIT would be a port pair that cannot be used
	// again. See also [Plane.reuse].
	timeWait = time.Second
	// maxRTO bounds how long after the end of a black-out of the tunnel the first retransmission
	// comes; with maxRetries of them a connection outlives about 16 minutes without the Peer.
	maxRTO     = 10 * time.Second
	maxRetries = 100
	// Buffers grow from small to what 500 Mbit/s need over 100 ms.
	minBuffer     = 4 << 10
	receiveBuffer = 256 << 10
	sendBuffer    = 256 << 10
	maxBuffer     = 6 << 20
	// maxHandshakes bounds handshakes that the stack carries on at once; each follows a dial that
	// has succeeded, so Limits.DialsPerPeer bounds them long before.
	maxHandshakes = 1 << 20
)

// newStack returns a stack that speaks TCP to whatever address a packet on l is for, and gives each
// connection to accept.
func newStack(l *link, accept func(*tcp.ForwarderRequest)) (*stack.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			// Loopback destinations get this far only where decide let them.
			ipv4.NewProtocolWithOptions(ipv4.Options{AllowExternalLoopbackTraffic: true}),
			ipv6.NewProtocolWithOptions(ipv6.Options{AllowExternalLoopbackTraffic: true}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC},
	})
	if err := setUp(s, l); err != nil {
		s.Destroy()
		return nil, err
	}
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s, receiveBuffer, maxHandshakes, accept).HandlePacket)
	return s, nil
}

func setUp(s *stack.Stack, l *link) error {
	steps := []struct {
		what string
		do   func() tcpip.Error
	}{
		{"create NIC", func() tcpip.Error { return s.CreateNIC(nicID, l) }},
		{"take all destinations", func() tcpip.Error { return s.SetPromiscuousMode(nicID, true) }},
		{"answer for all destinations", func() tcpip.Error { return s.SetSpoofing(nicID, true) }},
		{"enable SACK", option(s, tcpip.TCPSACKEnabled(true))},
		// The stack's RACK takes every tail loss probe that was not needed for a loss. Over a path that
		// now and then pauses for some milliseconds but never reorders, that only shrinks the window.
		{"use SACK alone to find losses", option(s, tcpip.TCPRecovery(0))},
		{"moderate receive buffers", option(s, tcpip.TCPModerateReceiveBufferOption(true))},
		{"set receive buffers", option(s, tcpip.TCPReceiveBufferSizeRangeOption{Min: minBuffer, Default: receiveBuffer, Max: maxBuffer})},
		{"set send buffers", option(s, tcpip.TCPSendBufferSizeRangeOption{Min: minBuffer, Default: sendBuffer, Max: maxBuffer})},
		{"set TIME_WAIT", option(s, tcpip.TCPTimeWaitTimeoutOption(timeWait))},
		{"set the longest retransmission time-out", option(s, tcpip.TCPMaxRTOOption(maxRTO))},
		{"set the number of retransmissions", option(s, tcpip.TCPMaxRetriesOption(maxRetries))},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("network stack: %s: %s", step.what, err)
		}
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID},
		{Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	return nil
}

// option returns a step that sets a TCP option of the whole stack.
func option[T any, P interface {
	*T
	tcpip.SettableTransportProtocolOption
}](s *stack.Stack, v T) func() tcpip.Error {
	return func() tcpip.Error { return s.SetTransportProtocolOption(tcp.ProtocolNumber, P(&v)) }
}
