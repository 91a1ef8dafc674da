// Package failure gives an error the two things a person at a terminal and a script need besides
// its text: what to do next, and an exit code.
//
// A failure travels as JSON from the user half to the command that started it, so its text is made
// where the cause is known and printed where the person is.
package failure

import (
	"errors"
	"fmt"
)

// Code is a process exit code of culvert.
type Code int

// The exit codes that scripts may rely on.
const (
	OK           Code = 0 // done
	General      Code = 1 // anything without a code of its own
	Usage        Code = 2 // usage or configuration
	Conflict     Code = 3 // cluster subnets are already routed by another network
	Permission   Code = 4 // a right is missing, on this host or in the cluster
	Unreachable  Code = 5 // the cluster's API server does not answer
	GatewayState Code = 6 // the gateway is missing, not ready or of an incompatible version
	Refused      Code = 7 // a policy refuses, or wants a consent that was not given
)

// Failure is an error with an exit code and a hint. The zero Code is read as General.
type Failure struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
	// Raw is set for a Text that is printed as it stands, without "error: " before it.
	Raw bool `json:"raw,omitempty"`

	cause error
}

// Error returns the text without the hint.
func (f *Failure) Error() string { return f.Text }

// Unwrap returns the cause, nil after a journey as JSON.
func (f *Failure) Unwrap() error { return f.cause }

// New returns a failure whose text is err's, followed in print by hint ("" for none).
func New(code Code, err error, hint string) *Failure {
	return &Failure{Code: code, Text: err.Error(), Hint: hint, cause: err}
}

// Newf is New with a formatted text and no hint.
func Newf(code Code, format string, args ...any) *Failure {
	return New(code, fmt.Errorf(format, args...), "")
}

// WithHint returns a copy of f with the hint set.
func (f *Failure) WithHint(format string, args ...any) *Failure {
	c := *f
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Of returns err as a Failure: itself if there is one in its chain, else one with code General.
// It returns nil for nil.
func Of(err error) *Failure {
	if err == nil {
		return nil
	}
	var f *Failure
	if !errors.As(err, &f) {
		return New(General, err, "")
	}
	if f.Text == err.Error() {
		return f
	}
	return &Failure{Code: f.Code, Text: err.Error(), Hint: f.Hint, cause: err}
}
