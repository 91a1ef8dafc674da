package labnet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Held is what hold prints.
type Held struct {
	Connections int `json:"connections"`
	// Ended are those that others ended, Hung those that were still there in the end.
	Ended int `json:"ended"`
	Hung  int `json:"hung"`
	// First and Last are when the first and the last was ended.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Errors says how each ended.
	Errors map[string]int `json:"errors"`
}

// heldText is written to standard error once all connections echo.
const heldText = "all connections are held"

func setupHold(f *flag.FlagSet) run {
	idle := f.Int("idle", 20, "connections that echo once and then wait")
	busy := f.Int("busy", 5, "connections that go on to echo")
	limit := f.Duration("limit", time.Minute, "for the whole; what is there then hangs")
	return func(ctx context.Context, args []string) (any, error) {
		end := time.Now().Add(*limit)
		ctx, cancel := context.WithDeadline(ctx, end)
		defer cancel()
		conns := make([]net.Conn, 0, *idle+*busy)
		defer func() {
			for _, conn := range conns {
				conn.Close()
			}
		}()
		for range *idle + *busy {
			// Without keepalive nothing of ours finds out that the other side is gone.
			conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", args[0])
			if err != nil {
				return nil, err
			}
			conns = append(conns, conn)
			if err := conn.SetDeadline(end); err != nil {
				return nil, err
			}
			if err := exchange(conn, []byte("held"), make([]byte, 64)); err != nil {
				return nil, err
			}
		}
		fmt.Fprintln(os.Stderr, heldText)
		held := watch(conns, *busy)
		if held.Hung > 0 {
			return held, errors.New("some connections hang")
		}
		return held, nil
	}
}

// watch waits for the end of each connection; the first busy ones echo all the time.
func watch(conns []net.Conn, busy int) Held {
	held := Held{Connections: len(conns), Errors: map[string]int{}}
	var mu sync.Mutex // guards held
	var wait sync.WaitGroup
	for i, conn := range conns {
		wait.Go(func() {
			err := untilEnd(conn, i < busy)
			mu.Lock()
			defer mu.Unlock()
			held.add(err, time.Now())
		})
	}
	wait.Wait()
	return held
}

// untilEnd returns the error that ends a connection.
func untilEnd(conn net.Conn, busy bool) error {
	buf := make([]byte, 64)
	for i := 0; busy; i++ {
		if err := exchange(conn, fmt.Appendf(nil, "held %06d", i), buf); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	_, err := io.ReadFull(conn, buf)
	return err
}

func (h *Held) add(err error, now time.Time) {
	h.Errors[withoutAddresses(err).Error()]++
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		h.Hung++
		return
	}
	h.Ended++
	if h.First.IsZero() {
		h.First = now
	}
	h.Last = now
}
