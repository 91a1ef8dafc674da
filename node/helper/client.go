package helper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// ErrHelperGone is matched by the errors of a [Client] whose helper has ended; the host is being
// restored then and the user half is to end too.
var ErrHelperGone = errors.New("the helper has ended")

// Client is the user half's side of the socketpair. Its methods are safe for concurrent use; requests
// are carried out one after another. A request whose context ends is still carried out.
type Client struct {
	conn   *net.UnixConn
	events chan Event
	done   chan struct{} // closed when the reader has ended
	hello  Hello

	mu      sync.Mutex // guards the fields below
	lastID  uint64
	waiting map[uint64]chan<- answer
	err     error // why the reader ended
}

// answer is a response with its descriptors.
type answer struct {
	response
	files []*os.File
}

// NewClient says hello over the socketpair's end f, which it takes over. The descriptor does not go
// on to programs that this process starts.
func NewClient(ctx context.Context, f *os.File) (*Client, error) {
	conn, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("the socket to the helper: %w", err)
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("the socket to the helper is no Unix socket"), conn.Close())
	}
	c := &Client{
		conn:    uc,
		events:  make(chan Event, 16),
		done:    make(chan struct{}),
		waiting: make(map[uint64]chan<- answer),
	}
	go c.read() // ends with the connection; Disconnect waits
	a, err := c.ask(ctx, request{Type: typeHello})
	if err == nil && a.Hello == nil {
		err = errors.New("the helper does not say hello")
	}
	if err != nil {
		c.Disconnect()
		return nil, err
	}
	c.hello = *a.Hello
	return c, nil
}

// Hello returns what the helper said about itself.
func (c *Client) Hello() Hello { return c.hello }

// Ping asks the helper for its current [Hello].
func (c *Client) Ping(ctx context.Context) (Hello, error) {
	a, err := c.ask(ctx, request{Type: typeHello})
	if err != nil {
		return Hello{}, err
	}
	if a.Hello == nil {
		return Hello{}, errors.New("the helper does not say hello")
	}
	return *a.Hello, nil
}

// Open has the helper create the interface, up and with its addresses, behind the filter, without
// routes. It can be called once. Errors match [ErrRefused] or hostnet.ErrForeign; nothing is left of
// a failed one.
func (c *Client) Open(ctx context.Context, r OpenRequest) (*Opened, error) {
	a, err := c.ask(ctx, request{Type: typeOpen, Open: &r})
	if err != nil {
		return nil, err
	}
	if a.Opened == nil {
		closeAll(a.files)
		return nil, errors.New("the helper's answer to open has no content")
	}
	o := &Opened{Interface: a.Opened.Interface, Addresses: a.Opened.Addresses, Host: a.Opened.Host, Earlier: a.Opened.Earlier}
	if err := o.fill(a); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// Apply brings the host to the state, which must name the interface, MTU and addresses as opened.
// Only differences are changed, so repeating it is cheap. After an error some of it may be in place;
// applying again goes on from there.
func (c *Client) Apply(ctx context.Context, s hostnet.State) error {
	_, err := c.ask(ctx, request{Type: typeApply, State: &s})
	return err
}

// Reset ends the sockets of this host that speak from one of the interface's addresses to an address
// in one of the prefixes, TCP and connected UDP, and returns their number. It is for prefixes that
// were taken from the tunnel, after [Client.Apply] took their routes: new sockets do not get the
// interface's address any more. The prefixes have to be within the limits and at most 4096. A kernel
// that cannot end sockets is an error (CONFIG_INET_DIAG_DESTROY); the connection goes on.
func (c *Client) Reset(ctx context.Context, prefixes []netip.Prefix) (int, error) {
	if len(prefixes) == 0 {
		return 0, nil
	}
	a, err := c.ask(ctx, request{Type: typeReset, Reset: prefixes})
	return a.Reset, err
}

// ResetEstablished is Reset for the TCP connections that stand. It is for another end of the tunnel, which
// knows nothing of the connections through the one before: they would hang until their programs give up,
// while UDP goes on by itself, and so does a handshake that is repeated.
func (c *Client) ResetEstablished(ctx context.Context, prefixes []netip.Prefix) (int, error) {
	if len(prefixes) == 0 {
		return 0, nil
	}
	a, err := c.ask(ctx, request{Type: typeReset, Reset: prefixes, Established: true})
	return a.Reset, err
}

// IPsec returns the IPsec policies of the host. From the first call on the helper watches them and
// sends an [Event] when they have changed. It needs no open interface.
func (c *Client) IPsec(ctx context.Context) (IPsec, error) {
	a, err := c.ask(ctx, request{Type: typeIPsec})
	if err != nil {
		return IPsec{}, err
	}
	if a.IPsec == nil {
		return IPsec{}, errors.New("the helper's answer to ipsec has no content")
	}
	return *a.IPsec, nil
}

// Close has the helper restore everything and end, and returns what could not be restored. A last
// that is not nil, a JSON object, is kept at [Paths.LastStatus] until the next start.
func (c *Client) Close(ctx context.Context, last json.RawMessage) error {
	_, err := c.ask(ctx, request{Type: typeClose, Last: last})
	c.Disconnect()
	return err
}

// Disconnect closes the socket, upon which the helper restores everything and ends, and waits for the
// reader. It is harmless after [Client.Close].
func (c *Client) Disconnect() {
	_ = c.conn.Close()
	<-c.done
}

// Events returns what the helper notices. It is closed when the helper ends. A reader that is behind
// misses events that later ones of the same kind replace.
func (c *Client) Events() <-chan Event { return c.events }

// Done is closed when the helper has ended or the client was disconnected.
func (c *Client) Done() <-chan struct{} { return c.done }

// ask sends a request and waits for its answer.
func (c *Client) ask(ctx context.Context, r request) (answer, error) {
	ch := make(chan answer, 1)
	if err := c.send(r, ch); err != nil {
		return answer{}, err
	}
	select {
	case a, ok := <-ch:
		if !ok {
			return answer{}, c.failure()
		}
		if a.Error != nil {
			closeAll(a.files)
			return answer{response: response{Reset: a.Reset}}, a.Error
		}
		return a, nil
	case <-ctx.Done():
		return answer{}, c.abandon(ch, ctx)
	}
}

// send registers the request and writes it.
func (c *Client) send(r request, ch chan<- answer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.lastID++
	r.ID, r.Version = c.lastID, protocolVersion
	data, err := encode(r)
	if err != nil {
		return err
	}
	c.waiting[r.ID] = ch
	if _, err := c.conn.Write(data); err != nil {
		delete(c.waiting, r.ID)
		return fmt.Errorf("%w: %w", ErrHelperGone, err)
	}
	return nil
}

// abandon forgets a request whose context ended; descriptors that came just then are closed.
func (c *Client) abandon(ch chan answer, ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, w := range c.waiting {
		if w == (chan<- answer)(ch) {
			delete(c.waiting, id)
		}
	}
	select {
	case a := <-ch:
		closeAll(a.files)
	default:
	}
	return fmt.Errorf("wait for the helper: %w", context.Cause(ctx))
}

// failure returns why the reader ended.
func (c *Client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
