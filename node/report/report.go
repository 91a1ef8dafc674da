// Package report is the conversation between `culvert connect` and the user half it started: one
// request down, then progress and questions up and answers down, and a result at the end, each one
// JSON value on a stream socket. It ends when either side closes.
package report

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// Request is what the user asked for. It may hold credentials given as flags, so it travels over a
// socket and not in arguments.
type Request struct {
	Name string       `json:"name"`
	Kube kube.Options `json:"kube"`
	// Flags and Environment are settings given there, the latter by variable name for provenance.
	Flags       v1alpha1.Settings `json:"flags"`
	Environment v1alpha1.Settings `json:"environment"`
	// ConfigFile is the file named with --config, "" for none.
	ConfigFile string `json:"configFile,omitempty"`
	// TrustPolicy consents beforehand to what the cluster's Policy takes from the host's networks.
	TrustPolicy bool `json:"trustPolicy,omitempty"`
	// Interactive is set when a person can answer a question.
	Interactive bool `json:"interactive,omitempty"`
	// TimeoutSeconds bounds connecting; 0 means the default.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`
	// Foreground ties the connection to the command: it ends when the command does.
	Foreground bool `json:"foreground,omitempty"`
	// Debug raises the log level.
	Debug bool `json:"debug,omitempty"`
}

// Message goes from the user half to the command. Exactly one field is set.
type Message struct {
	Progress string  `json:"progress,omitempty"`
	Question string  `json:"question,omitempty"` // a yes-or-no question
	Result   *Result `json:"result,omitempty"`
}

// Result is the last message: the connection's state, or why there is none.
type Result struct {
	Failure *failure.Failure `json:"failure,omitempty"`
	Status  *api.Status      `json:"status,omitempty"`
}

// Answer is the reply to a question.
type Answer struct {
	Yes bool `json:"yes"`
}

// Channel is one end of the conversation. One goroutine may send while another receives.
type Channel struct {
	io.Closer
	enc *json.Encoder
	dec *json.Decoder
}

// NewChannel returns an end that reads and writes rw, and closes it.
func NewChannel(rw io.ReadWriteCloser) *Channel {
	return &Channel{Closer: rw, enc: json.NewEncoder(rw), dec: json.NewDecoder(rw)}
}

// Send writes one value: a Request, Message or Answer.
func (c *Channel) Send(v any) error { return c.enc.Encode(v) }

// Receive reads the next value into v; io.EOF when the other side has closed.
func (c *Channel) Receive(v any) error { return c.dec.Decode(v) }

// Progress tells the command what is being done now. An absent reader is no error: a connection
// outlives the terminal it was started from.
func (c *Channel) Progress(format string, args ...any) {
	_ = c.Send(Message{Progress: fmt.Sprintf(format, args...)})
}
