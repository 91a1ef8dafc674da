package carrier

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/carrier/streamtest"
	"github.com/culvert-dev/culvert/internal/frame"
	"golang.zx2c4.com/wireguard/conn"
)

// FuzzLink lets a stranger say anything on a stream. The link must end by itself once the stranger hangs
// up, and hand on only packets that were in data frames.
func FuzzLink(f *testing.F) {
	hello, err := frame.AppendHello(nil, fillHello(Hello{}, frame.RoleNode))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(frame.Append(bytes.Clone(hello), frame.TypeData, []byte("packet")))
	f.Add(frame.AppendNumber(bytes.Clone(hello), frame.TypeAck, 1<<40))
	f.Add(append(bytes.Clone(hello), hello...))
	f.Add(frame.AppendNumber(frame.AppendNumber(bytes.Clone(hello), frame.TypeEcho, 1), frame.TypeEchoReply, 1))
	f.Add(frame.Append(bytes.Clone(hello), frame.TypeBye, []byte("a\x1b[31m")))
	f.Fuzz(func(t *testing.T, said []byte) {
		ours, theirs := streamtest.Pipe(streamtest.Shape{})
		bind := NewBind()
		defer bind.Close()
		listen(t, bind, func(p []byte, _ conn.Endpoint) {
			if len(p) > 0 && !bytes.Contains(said, p) {
				t.Errorf("a packet that was never sent: %x", p)
			}
		})
		l, err := newLink(ours, bind, bind.newStreamEndpoint(), fillHello(Hello{}, frame.RoleGateway), Timing{}.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		l.endpoint.attach(l, false)
		bind.Send([][]byte{{4, 0, 0, 0}}, l.endpoint)
		go io.Copy(io.Discard, theirs)
		if _, err := theirs.Write(said); err == nil {
			theirs.Close()
		}
		select {
		case <-l.done:
		case <-time.After(10 * time.Second):
			t.Fatal("the link did not end")
		}
		l.wait()
		if l.reason() == nil {
			t.Error("no reason")
		}
		bind.remove(l.endpoint)
	})
}
