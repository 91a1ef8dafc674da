package helper

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

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

// deliverEvent queues an event. When nobody reads, of each kind only the last is kept: a storm of one kind
// costs no event of another.
func (c *Client) deliverEvent(e Event) {
	select {
	case c.events <- e:
		return
	default:
	}
	var waiting []Event
	for drained := false; !drained; {
		select {
		case w := <-c.events:
			waiting = append(waiting, w)
		default:
			drained = true
		}
	}
	for _, w := range lastOfEachKind(append(waiting, e)) {
		c.events <- w // there are fewer kinds than places, and only this goroutine sends
	}
}

// lastOfEachKind returns the events that no later one of the same kind replaces, in their order.
func lastOfEachKind(events []Event) []Event {
	last := map[string]int{}
	for i, e := range events {
		last[e.kind()] = i
	}
	var out []Event
	for i, e := range events {
		if last[e.kind()] == i {
			out = append(out, e)
		}
	}
	return out
}

// kind says what an event is about; a later one of the same kind makes an earlier one needless.
func (e Event) kind() string {
	switch {
	case e.Host != nil:
		return "host"
	case e.Contested != nil:
		return "contest " + string(e.Contested.Kind)
	case e.Earlier != nil:
		return "earlier"
	}
	return "IPsec"
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
