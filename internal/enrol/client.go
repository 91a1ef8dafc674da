package enrol

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
)

// Enrol asks for r over conn and returns the agent's answer. An error that matches [Refusal] is the agent's no, or
// says what is wrong with the form of r; after any other, and after the end of ctx, conn is closed. Otherwise it
// stays open for further calls, one at a time, and closing it is the caller's.
func Enrol(ctx context.Context, conn io.ReadWriteCloser, r Request) (Answer, error) {
	line, err := AppendRequest(nil, r)
	if err != nil {
		return Answer{}, fmt.Errorf("enrol at the agent: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	answer, err := exchange(conn, line)
	ended := !stop()
	var no *Refusal
	switch {
	case ended:
		return Answer{}, fmt.Errorf("enrol at the agent: %w", context.Cause(ctx))
	case errors.As(err, &no):
		return Answer{}, fmt.Errorf("enrol at the agent: %w", err)
	case err != nil:
		conn.Close()
		return Answer{}, fmt.Errorf("enrol at the agent: %w", err)
	}
	return answer, nil
}

// exchange sends one line and reads the answer to it.
func exchange(conn io.ReadWriter, line []byte) (Answer, error) {
	if _, err := conn.Write(line); err != nil {
		return Answer{}, err
	}
	in := bufio.NewReaderSize(conn, MaxAnswer)
	answer, err := in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return Answer{}, fmt.Errorf("answer of more than %d bytes", MaxAnswer)
	case errors.Is(err, io.EOF) && len(answer) == 0:
		return Answer{}, fmt.Errorf("the stream ended without an answer: %w", io.ErrUnexpectedEOF)
	case err != nil:
		return Answer{}, err
	case in.Buffered() > 0:
		return Answer{}, errors.New("more than one line in answer to one")
	}
	return ParseAnswer(answer)
}

// Bye tells the agent over conn that the connection has ended. It is Enrol with Bye.
func Bye(ctx context.Context, conn io.ReadWriteCloser, r Request) error {
	r.Bye = true
	_, err := Enrol(ctx, conn, r)
	return err
}
