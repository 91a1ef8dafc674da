package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// The protocol of the portforward subresource: SPDY/3.1 by itself, or inside a WebSocket.
const (
	portForwardProtocol          = "portforward.k8s.io"
	portForwardWebSocketProtocol = "SPDY/3.1+" + portForwardProtocol
)

// DialPod opens a stream to a TCP port on the loopback of a pod in the gateway's namespace, through
// the API server: over WebSocket, or SPDY where a server or proxy refuses that. It returns when ctx
// ends, also when the path is dead; the stream's Close unblocks its Read and Write likewise.
func (c *Client) DialPod(ctx context.Context, pod string, port int) (io.ReadWriteCloser, error) {
	return c.dialPod(ctx, c.namespace, pod, port, c.explain)
}

// DialAgent is DialPod for one of an agent's ports.
func (c *Client) DialAgent(ctx context.Context, a Agent, port int) (io.ReadWriteCloser, error) {
	return c.dialPod(ctx, a.Namespace, a.Pod, port, func(doing string, err error) error {
		return c.agentFailure(ctx, a.Namespace, doing, err)
	})
}

// dialPod is DialPod for any namespace, with what makes a failure of an error.
func (c *Client) dialPod(ctx context.Context, namespace, pod string, port int, explain func(doing string, err error) error) (io.ReadWriteCloser, error) {
	doing := fmt.Sprintf("open a port-forward to pod %s", pod)
	base, _, err := rest.DefaultServerUrlFor(c.config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	target := base.JoinPath("api/v1/namespaces", namespace, "pods", pod, "portforward")
	carrier, err := c.dialCarrier(ctx, target)
	if err == nil {
		var stream *podStream
		if stream, err = openStreams(ctx, carrier, port); err == nil {
			return stream, nil
		}
		_ = carrier.close() // nothing was sent that could be lost
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	return nil, explain(doing, err)
}

// dialCarrier upgrades a connection by the first way that works. Where none does, what the API server
// said to the first is told, if it was the API server that spoke.
func (c *Client) dialCarrier(ctx context.Context, target *url.URL) (*multiplexed, error) {
	carrier, err := c.dialWebSocket(ctx, target)
	if !httpstream.IsUpgradeFailure(err) && !httpstream.IsHTTPSProxyError(err) {
		return carrier, err
	}
	// A WebSocket is opened by GET. API servers that ask for the verb "get" then refuse who may only
	// "create", so a refusal too is a reason to try the other way.
	older, olderErr := c.dialSPDY(ctx, target)
	var first *httpstream.UpgradeFailureError
	if olderErr != nil && errors.As(err, &first) && isAPIStatus(first.Cause) {
		return nil, first.Cause
	}
	return older, olderErr
}

// multiplexed is an upgraded HTTP connection that carries SPDY streams.
type multiplexed struct {
	httpstream.Connection
	socket net.Conn  // what is beneath; nil if unknown
	gather *gatherer // of writes; nil if there is none
}

// close closes the socket first: a stream connection's own Close may wait for a peer that is gone. What
// that then says (it cannot say goodbye, or has noticed the closed socket) is no news.
func (m *multiplexed) close() error {
	if m.socket == nil {
		return m.Connection.Close()
	}
	err := m.socket.Close()
	_ = m.Connection.Close()
	return err
}

// dialWebSocket upgrades to SPDY inside a WebSocket. client-go's own dialer for this takes no context
// and hides the socket, so its parts are put together here.
func (c *Client) dialWebSocket(ctx context.Context, target *url.URL) (*multiplexed, error) {
	transport, holder, err := websocket.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	// The library heeds a deadline, but not a cancellation once the connection stands.
	stop := func() bool { return true }
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		stop = context.AfterFunc(ctx, func() { i.Conn.Close() }) //nolint:errcheck // given up
	}}
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	conn, err := websocket.Negotiate(transport, holder, request, portForwardWebSocketProtocol)
	stop()
	if err != nil {
		return nil, err
	}
	c.dialled.note(conn.NetConn())
	gather := &gatherer{Conn: portforward.NewTunnelingConnection("culvert", conn)}
	streams, err := spdy.NewClientConnection(gather) // without pings: the carrier has its own
	if err != nil {
		return nil, errors.Join(err, conn.NetConn().Close())
	}
	return &multiplexed{Connection: streams, socket: conn.NetConn(), gather: gather}, nil
}

// dialSPDY upgrades to SPDY itself, which API servers before 1.31 want.
func (c *Client) dialSPDY(ctx context.Context, target *url.URL) (*multiplexed, error) {
	tlsConfig, err := rest.TLSConfigFor(c.config)
	if err != nil {
		return nil, err
	}
	proxy := c.config.Proxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	upgrader, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{TLS: tlsConfig, Proxier: proxy})
	if err != nil {
		return nil, err
	}
	transport, err := rest.HTTPWrappersForConfig(c.config, upgrader)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set(httpstream.HeaderProtocolVersion, portForwardProtocol)
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // the connection is taken over, or of no use
	streams, err := upgrader.NewConnection(response)
	if err != nil {
		return nil, err
	}
	return &multiplexed{Connection: streams}, nil
}

// openStreams opens the pair of streams that one forwarded connection consists of, both at once: each
// takes a round trip to the node. It returns when ctx ends; the caller then closes the connection. The
// library waits for an answer for up to 30 seconds more, whatever happens to the connection, and
// nothing waits for it.
func openStreams(ctx context.Context, carrier *multiplexed, port int) (*podStream, error) {
	type created struct {
		stream httpstream.Stream
		err    error
	}
	open := func(kind string) <-chan created {
		out := make(chan created, 1)
		go func() {
			stream, err := carrier.CreateStream(streamHeaders(kind, port))
			if err != nil {
				err = fmt.Errorf("create %s stream: %w", kind, err)
			}
			out <- created{stream, err}
		}()
		return out
	}
	var streams [2]httpstream.Stream
	for i, out := range []<-chan created{open(corev1.StreamTypeError), open(corev1.StreamTypeData)} {
		select {
		case c := <-out:
			if c.err != nil {
				return nil, c.err
			}
			streams[i] = c.stream
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	errs, data := streams[0], streams[1]
	if err := errs.Close(); err != nil { // nothing is written to it
		return nil, fmt.Errorf("close error stream for writing: %w", err)
	}
	s := &podStream{Stream: data, carrier: carrier, remote: make(chan error, 1)}
	go s.readErrors(errs) // ends with the connection; Close waits for it
	return s, nil
}

// streamHeaders say what a stream is for; the request id, the same in both, makes the pair.
func streamHeaders(kind string, port int) http.Header {
	headers := http.Header{}
	headers.Set(corev1.StreamType, kind)
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	return headers
}

// podStream is one forwarded connection; it owns the upgraded connection beneath.
type podStream struct {
	httpstream.Stream
	carrier *multiplexed
	remote  chan error // what the kubelet said went wrong, or nil at the end
	once    sync.Once
	err     error
}

var _ io.ReadWriteCloser = (*podStream)(nil)

// Write sends p in one piece where the connection allows it.
func (s *podStream) Write(p []byte) (int, error) {
	if s.carrier.gather == nil {
		return s.Stream.Write(p)
	}
	s.carrier.gather.hold()
	n, err := s.Stream.Write(p)
	return n, errors.Join(err, s.carrier.gather.release())
}

func (s *podStream) readErrors(errs io.Reader) {
	message, err := io.ReadAll(io.LimitReader(errs, 4096))
	if err == nil && len(message) > 0 {
		s.remote <- fmt.Errorf("port-forward: %s", message)
		s.carrier.close() //nolint:errcheck // so that Read returns; Close reports
		return
	}
	s.remote <- nil
}

// Close ends the forwarded connection and the one beneath.
func (s *podStream) Close() error {
	s.once.Do(func() {
		s.err = s.carrier.close()
		if err := <-s.remote; err != nil {
			s.err = err
		}
	})
	if errors.Is(s.err, net.ErrClosed) {
		return nil
	}
	return s.err
}
