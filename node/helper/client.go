package helper

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/dns/hostdns"
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

// Opened is what [Client.Open] returns. The caller closes what is in it.
type Opened struct {
	// Interface is the name of the interface, Addresses are its addresses: those asked for, without
	// IPv6 where the kernel has none.
	Interface string
	Addresses []netip.Prefix
	// TUN carries the packets; see [Opened.TakeTUN].
	TUN *os.File
	// UAPI is the listener of wg(8)'s socket, which only root can connect to.
	UAPI net.Listener
	// DNSUDP and DNSTCP are bound to port 53 of each of Addresses, in their order.
	DNSUDP []net.PacketConn
	DNSTCP []net.Listener
	// Host is the host's own resolver configuration: the upstreams.
	Host hostdns.Config
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
	o := &Opened{Interface: a.Opened.Interface, Addresses: a.Opened.Addresses, Host: a.Opened.Host}
	if err := o.fill(a); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// fill turns descriptors into what they are. It takes over all of them.
func (o *Opened) fill(a answer) (err error) {
	if len(a.files) != len(a.Files) {
		closeAll(a.files)
		return fmt.Errorf("%d descriptors came from the helper instead of %d", len(a.files), len(a.Files))
	}
	for i, f := range a.files {
		if e := o.take(a.Files[i], f); e != nil {
			err = errors.Join(err, fmt.Errorf("descriptor %s from the helper: %w", a.Files[i], e))
		}
	}
	if err == nil && (o.TUN == nil || o.UAPI == nil) {
		err = errors.New("descriptors are missing in the helper's answer")
	}
	return err
}

// take takes over one descriptor.
func (o *Opened) take(role fileRole, f *os.File) error {
	if role == roleTUN {
		o.TUN = f
		return nil
	}
	defer f.Close() // the net package works on a copy
	if role == roleDNSUDP {
		pc, err := net.FilePacketConn(f)
		if err == nil {
			o.DNSUDP = append(o.DNSUDP, pc)
		}
		return err
	}
	l, err := net.FileListener(f)
	switch {
	case err != nil:
	case role == roleUAPI:
		l.(*net.UnixListener).SetUnlinkOnClose(false) // the helper removes it
		o.UAPI = l
	case role == roleDNSTCP:
		o.DNSTCP = append(o.DNSTCP, l)
	default:
		err = errors.Join(errors.New("unknown role"), l.Close())
	}
	return err
}

// TakeTUN returns a descriptor for golang.zx2c4.com/wireguard/tun.CreateUnmonitoredTUNFromFD, which
// owns it from then on, and closes TUN: an [os.File] that is forgotten would close it under the device.
func (o *Opened) TakeTUN() (int, error) {
	raw, err := o.TUN.SyscallConn()
	if err != nil {
		return -1, err
	}
	dup := -1
	if e := raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		err = e
	}
	if err != nil {
		return -1, fmt.Errorf("copy the TUN descriptor: %w", err)
	}
	return dup, o.TUN.Close()
}

// Close closes what is in o.
func (o *Opened) Close() {
	if o.TUN != nil {
		_ = o.TUN.Close()
	}
	if o.UAPI != nil {
		_ = o.UAPI.Close()
	}
	for _, c := range o.DNSUDP {
		_ = c.Close()
	}
	for _, l := range o.DNSTCP {
		_ = l.Close()
	}
}

// Apply brings the host to the state, which must name the interface, MTU and addresses as opened.
// Only differences are changed, so repeating it is cheap. After an error some of it may be in place;
// applying again goes on from there.
func (c *Client) Apply(ctx context.Context, s hostnet.State) error {
	_, err := c.ask(ctx, request{Type: typeApply, State: &s})
	return err
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
// misses the oldest events; of each kind the last one counts.
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
			return answer{}, a.Error
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

// read hands out answers and events until the connection ends.
func (c *Client) read() {
	var err error
	for err == nil {
		var a answer
		if a, err = c.readAnswer(); err == nil {
			c.deliver(a)
		}
	}
	c.mu.Lock()
	c.err = fmt.Errorf("%w: %w", ErrHelperGone, err)
	for id, ch := range c.waiting {
		close(ch)
		delete(c.waiting, id)
	}
	c.mu.Unlock()
	close(c.events)
	close(c.done)
}

// deliver hands one message to whom it is for.
func (c *Client) deliver(a answer) {
	if a.Event != nil {
		closeAll(a.files)
		c.deliverEvent(*a.Event)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.waiting[a.ID]
	delete(c.waiting, a.ID)
	if ch == nil {
		closeAll(a.files)
		return
	}
	ch <- a // has room for the one answer
}

// deliverEvent queues an event, dropping the oldest when nobody reads.
func (c *Client) deliverEvent(e Event) {
	for {
		select {
		case c.events <- e:
			return
		default:
		}
		select {
		case <-c.events:
		default:
		}
	}
}

// readAnswer reads one message and the descriptors on its first bytes.
func (c *Client) readAnswer() (answer, error) {
	head := make([]byte, 4)
	files, err := readHead(c.conn, head)
	if err != nil {
		closeAll(files)
		return answer{}, err
	}
	body, err := readBody(c.conn, binary.BigEndian.Uint32(head))
	if err != nil {
		closeAll(files)
		return answer{}, err
	}
	a := answer{files: files}
	if err := json.Unmarshal(body, &a.response); err != nil {
		closeAll(files)
		return answer{}, fmt.Errorf("decode the helper's message: %w", err)
	}
	return a, nil
}

// maxFiles bounds the descriptors of one message: TUN, UAPI and two DNS sockets per family.
const maxFiles = 8

// readHead fills head and returns the descriptors that came with it, not inherited by programs this
// process starts (the net package asks for that).
func readHead(c *net.UnixConn, head []byte) ([]*os.File, error) {
	var files []*os.File
	for n := 0; n < len(head); {
		oob := make([]byte, unix.CmsgSpace(4*maxFiles))
		m, oobn, _, _, err := c.ReadMsgUnix(head[n:], oob)
		files = append(files, parseRights(oob[:oobn])...)
		if err != nil {
			return files, err
		}
		if m == 0 {
			return files, io.EOF
		}
		n += m
	}
	return files, nil
}

// parseRights returns the descriptors in a control message.
func parseRights(oob []byte) []*os.File {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "from the helper"))
		}
	}
	return files
}
