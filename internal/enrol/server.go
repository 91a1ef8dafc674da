package enrol

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/culvert-dev/culvert/internal/accept"
)

// Server is the agent's side. Handle is required; the fields are not changed after Serve began.
type Server struct {
	// Handle answers one request. It may be called from several goroutines and must not block for long. An
	// error that matches [Refusal] is told as it is, any other with the reason Failed.
	Handle func(Request) (Answer, error)
	// Log gets what was malformed; nil discards it.
	Log *slog.Logger
	// MaxStreams are open at most, more are closed at once; 0 means 32.
	MaxStreams int
	// Patience is how long a stream may be silent, and how long an answer may take to be read; 0 means 30 s.
	Patience time.Duration
}

// Serve answers what comes by listener until ctx ends, then it closes all streams and returns nil. Another
// error is the listener's. It closes the listener. It may be called for several listeners at once.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	return accept.Serve(ctx, listener, accept.Streams{
		What: "enrolments",
		Most: cmp.Or(s.MaxStreams, 32),
		Handle: func(ctx context.Context, stream net.Conn) {
			defer stream.Close()
			defer context.AfterFunc(ctx, func() { stream.Close() })()
			s.serve(stream)
		},
	})
}

// serve answers the requests of one stream until it ends, is silent for too long or says something malformed.
func (s *Server) serve(stream net.Conn) {
	in := bufio.NewReaderSize(stream, MaxRequest)
	patience := cmp.Or(s.Patience, 30*time.Second)
	for {
		if err := stream.SetDeadline(time.Now().Add(patience)); err != nil {
			return
		}
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
		answer, malformed := s.answer(line, err)
		if err := stream.SetDeadline(time.Now().Add(patience)); err != nil {
			return
		}
		if _, err := stream.Write(answer); err != nil || malformed {
			return
		}
	}
}

// answer returns the answer to one line, or to one too long, and whether the stream is better closed.
func (s *Server) answer(line []byte, tooLong error) (text []byte, malformed bool) {
	var a Answer
	r, err := ParseRequest(line)
	if tooLong != nil {
		err = refuse(Malformed, "a line of more than %d bytes", MaxRequest)
	}
	if err == nil {
		a, err = s.Handle(r)
	}
	no := refusal(err)
	malformed = no != nil && no.Reason == Malformed
	if malformed && s.Log != nil {
		s.Log.Warn("an enrolment is malformed", "err", no)
	}
	text, err = AppendAnswer(nil, a, no)
	if err != nil { // more than an answer can hold
		text, _ = AppendAnswer(nil, Answer{}, refuse(Failed, "%v", err))
	}
	return text, malformed
}

// refusal returns err as what is told to the node; nil for nil.
func refusal(err error) *Refusal {
	var no *Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &no):
		return no
	}
	return refuse(Failed, "%v", err)
}
