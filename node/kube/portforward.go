package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// portForwardProtocol is the one protocol that API servers speak on the portforward subresource.
const portForwardProtocol = "portforward.k8s.io"

// DialPod opens a stream to a TCP port on the loopback of a pod in the gateway's namespace, through
// the API server: over WebSocket, or SPDY where a server or proxy refuses that. The stream's Close
// unblocks its Read and Write.
func (c *Client) DialPod(ctx context.Context, pod string, port int) (io.ReadWriteCloser, error) {
	doing := fmt.Sprintf("open a port-forward to pod %s", pod)
	connection, raw, err := c.upgrade(ctx, pod)
	if err != nil {
		return nil, c.explain(doing, err)
	}
	stream, err := openStreams(connection, raw, port)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, errors.Join(err, connection.Close(), raw.Close()))
	}
	return stream, nil
}

// upgrade turns an HTTP request into a stream connection and also returns the sockets beneath, which
// alone can be closed when the path is dead. client-go's dialers take no context, so the end of ctx
// closes the sockets instead.
func (c *Client) upgrade(ctx context.Context, pod string) (httpstream.Connection, *sockets, error) {
	raw := &sockets{}
	config := rest.CopyConfig(c.config)
	config.Dial = raw.wrap(ctx, c.config.Dial)
	dialer, err := c.dialer(config, pod)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() }) //nolint:errcheck // abandoned
	connection, _, err := dialer.Dial(portForwardProtocol)
	if !stop() || err != nil {
		raw.Close() //nolint:errcheck // abandoned
		return nil, nil, errors.Join(context.Cause(ctx), err)
	}
	return connection, raw, nil
}

func (c *Client) dialer(config *rest.Config, pod string) (httpstream.Dialer, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	target := base.JoinPath("api/v1/namespaces", c.namespace, "pods", pod, "portforward")
	websocket, err := portforward.NewSPDYOverWebsocketDialer(target, config)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	plain := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	return portforward.NewFallbackDialer(websocket, plain, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// openStreams opens the pair of streams that one forwarded connection consists of.
func openStreams(connection httpstream.Connection, raw *sockets, port int) (*podStream, error) {
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	errs, err := connection.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("create error stream: %w", err)
	}
	if err := errs.Close(); err != nil { // nothing is written to it
		return nil, fmt.Errorf("close error stream for writing: %w", err)
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := connection.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("create data stream: %w", err)
	}
	s := &podStream{Stream: data, connection: connection, raw: raw, remote: make(chan error, 1)}
	go s.readErrors(errs) // ends with the connection; Close waits for it
	return s, nil
}

// podStream is one forwarded connection; it owns the stream connection beneath.
type podStream struct {
	httpstream.Stream
	connection httpstream.Connection
	raw        *sockets
	remote     chan error // what the kubelet said went wrong, or nil at the end
	once       sync.Once
	err        error
}

var _ io.ReadWriteCloser = (*podStream)(nil)

func (s *podStream) readErrors(errs io.Reader) {
	message, err := io.ReadAll(io.LimitReader(errs, 4096))
	if err == nil && len(message) > 0 {
		err = fmt.Errorf("port-forward: %s", message)
		s.remote <- err
		s.raw.Close() //nolint:errcheck // so that Read returns
		return
	}
	s.remote <- nil
}

// Close closes the socket first: a stream connection's own Close may wait for a peer that is gone.
func (s *podStream) Close() error {
	s.once.Do(func() {
		s.err = errors.Join(s.raw.Close(), s.connection.Close())
		if err := <-s.remote; err != nil {
			s.err = err
		}
	})
	if errors.Is(s.err, net.ErrClosed) {
		return nil
	}
	return s.err
}

// sockets are the network connections that one dial made.
type sockets struct {
	mu     sync.Mutex
	conns  []net.Conn // guarded by mu
	closed bool       // guarded by mu
}

func (s *sockets) wrap(ctx context.Context, dial dialFunc) dialFunc {
	return func(dialCtx context.Context, network, address string) (net.Conn, error) {
		dialCtx, cancel := context.WithCancel(dialCtx)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		conn, err := dial(dialCtx, network, address)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			conn.Close() //nolint:errcheck // abandoned
			return nil, net.ErrClosed
		}
		s.conns = append(s.conns, conn)
		return conn, nil
	}
}

func (s *sockets) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var err error
	for _, conn := range s.conns {
		err = errors.Join(err, conn.Close())
	}
	s.conns = nil
	return err
}
