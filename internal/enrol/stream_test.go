package enrol

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// start serves on loopback and returns how to get there. It ends with the test.
func start(t *testing.T, s *Server) func() net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t)
	})
	return func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// said collects what a server was asked.
type said struct {
	mu  sync.Mutex
	all []Request
}

func (s *said) take(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, r)
}

func TestEnrol(t *testing.T) {
	var got said
	dial := start(t, &Server{Handle: func(r Request) (Answer, error) {
		got.take(r)
		switch r.Connection {
		case "taken":
			return Answer{}, &Refusal{Conflict, "address 245.1.2.4 belongs to another node"}
		case "broken":
			return Answer{}, errors.New("out of paper")
		}
		return Answer{PublicKey: agentKey, PodUID: "pod-1"}, nil
	}})
	c, ctx := dial(), context.Background()
	for range 3 { // one stream for all
		if a, err := Enrol(ctx, c, request()); err != nil || a.PublicKey != agentKey || a.PodUID != "pod-1" {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	for connection, want := range map[string]string{"taken": Conflict, "broken": Failed} {
		r := request()
		r.Connection = connection
		var no *Refusal
		if _, err := Enrol(ctx, c, r); !errors.As(err, &no) || no.Reason != want {
			t.Errorf("%s: %v", connection, err)
		}
	}
	if err := Bye(ctx, c, request()); err != nil {
		t.Error(err)
	}
	if n := len(got.all); n != 6 || !reflect.DeepEqual(got.all[0], request()) || !got.all[5].Bye {
		t.Errorf("the agent heard %+v", got.all)
	}
}

// What speaks another language is told so and gets no further.
func TestServerClosesAfterNonsense(t *testing.T) {
	dial := start(t, &Server{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Handle: func(r Request) (Answer, error) {
		t.Errorf("handled %+v", r)
		return Answer{}, nil
	}})
	good, err := AppendRequest(nil, request())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"HTTP":              "POST / HTTP/1.1\r\nContent-Type: text/plain\r\n\r\n" + string(good),
		"an endless line":   strings.Repeat("x", MaxRequest),
		"an endless object": `{"protocol":1,"x":"` + strings.Repeat("x", MaxRequest),
	} {
		c := dial()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(c)
		line, err := in.ReadString('\n')
		if _, no := ParseAnswer([]byte(line)); err != nil || no == nil {
			t.Errorf("%s: answer %q, %v", name, line, err)
		}
		if rest, _ := io.ReadAll(in); len(rest) > 0 {
			t.Errorf("%s: then %q", name, rest)
		}
	}
}

func TestServerBounds(t *testing.T) {
	handle := func(Request) (Answer, error) { return Answer{PublicKey: agentKey}, nil }
	dial := start(t, &Server{Handle: handle, MaxStreams: 1, Patience: 300 * time.Millisecond})
	first := dial()
	if _, err := Enrol(context.Background(), first, request()); err != nil {
		t.Fatal(err)
	}
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Error("one stream too many is served")
	}
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a silent stream ends with %v", err)
	}
}

// answering is an agent at the other end of a pipe that answers one line with text.
func answering(t *testing.T, text string) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	var agent sync.WaitGroup
	agent.Go(func() {
		defer far.Close()
		if _, err := bufio.NewReader(far).ReadString('\n'); err == nil {
			_, _ = io.WriteString(far, text)
		}
	})
	t.Cleanup(func() { near.Close(); agent.Wait(); goleak.VerifyNone(t) })
	return near
}

func TestEnrolAtAStrangeAgent(t *testing.T) {
	good, err := AppendAnswer(nil, Answer{PublicKey: agentKey}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ text, want string }{
		"silence":       {"", "without an answer"},
		"half a line":   {string(good[:20]), "EOF"},
		"an epic":       {strings.Repeat("x", MaxAnswer+1), "more than 4096 bytes"},
		"two answers":   {string(good) + string(good), "more than one line"},
		"another world": {"SSH-2.0-dropbear\n", "JSON object"},
	} {
		if _, err := Enrol(context.Background(), answering(t, row.text), request()); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}

func TestEnrolEndsWithItsContext(t *testing.T) {
	near, far := net.Pipe() // nobody reads
	defer far.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("enough"))
	if _, err := Enrol(ctx, near, request()); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Error(err)
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the stream lives: %v", err)
	}
	goleak.VerifyNone(t)
}
