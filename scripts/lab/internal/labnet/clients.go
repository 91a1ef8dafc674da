package labnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// run is a client: it prints its result even when it returns an error too.
type run = func(ctx context.Context, args []string) (any, error)

var errSomeFailed = errors.New("some operations failed")

func verdict(o Outcome) (any, error) {
	if o.Failed > 0 || o.OK == 0 {
		return o, errSomeFailed
	}
	return o, nil
}

// parallel calls operation count times from so many workers and tallies the
// calls. It stops early when ctx ends; what was not tried counts as nothing.
func parallel(ctx context.Context, count, workers int, operation func(ctx context.Context, i int) error) Outcome {
	var t tally
	next := make(chan int)
	begin := time.Now()
	var wait sync.WaitGroup
	for range max(1, min(workers, count)) {
		wait.Go(func() {
			for i := range next {
				start := time.Now()
				err := operation(ctx, i)
				t.add(time.Since(start), err)
			}
		})
	}
feed:
	for i := range count {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wait.Wait()
	return t.outcome(time.Since(begin))
}

func dial(ctx context.Context, network, addr string, limit time.Duration) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: limit}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(limit))
}

// exchange sends message and reads it back.
func exchange(conn net.Conn, message, buf []byte) error {
	if _, err := conn.Write(message); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, buf[:len(message)]); err != nil {
		return err
	}
	if !bytes.Equal(message, buf[:len(message)]) {
		return errors.New("the echo differs from what was sent")
	}
	return nil
}

func setupConnections(f *flag.FlagSet) run {
	count := f.Int("count", 1000, "connections open at the same time")
	limit := f.Duration("timeout", 30*time.Second, "for each connection")
	return func(ctx context.Context, args []string) (any, error) {
		// All stay open until the last has echoed: only then are they concurrent.
		// What is timed is each one's own connect and echo.
		var t tally
		var echoed, done sync.WaitGroup
		echoed.Add(*count)
		begin := time.Now()
		for i := range *count {
			done.Go(func() {
				start := time.Now()
				conn, err := dial(ctx, "tcp", args[0], *limit)
				if err == nil {
					defer conn.Close()
					err = exchange(conn, fmt.Appendf(nil, "connection %06d", i), make([]byte, 64))
				}
				t.add(time.Since(start), err)
				echoed.Done()
				echoed.Wait()
			})
		}
		echoed.Wait()
		took := time.Since(begin)
		done.Wait()
		return verdict(t.outcome(took))
	}
}

func setupShort(f *flag.FlagSet) run {
	count := f.Int("count", 1000, "connections in all")
	workers := f.Int("parallel", 1, "at the same time")
	closer := f.String("close", "client", "who closes first: client (an echo port) or server (port 7001)")
	limit := f.Duration("timeout", 10*time.Second, "for each connection")
	return func(ctx context.Context, args []string) (any, error) {
		operation := shortClient
		switch *closer {
		case "client":
		case "server":
			operation = shortServer
		default:
			return nil, fmt.Errorf("--close %s: want client or server", *closer)
		}
		return verdict(parallel(ctx, *count, *workers, func(ctx context.Context, i int) error {
			conn, err := dial(ctx, "tcp", args[0], *limit)
			if err != nil {
				return err
			}
			defer conn.Close()
			return operation(conn, i)
		}))
	}
}

func shortClient(conn net.Conn, i int) error {
	return exchange(conn, fmt.Appendf(nil, "short %06d", i), make([]byte, 64))
}

func shortServer(conn net.Conn, _ int) error {
	all, err := io.ReadAll(conn)
	if err == nil && string(all) != "bye\n" {
		err = fmt.Errorf("read %q", all)
	}
	return err
}

func setupPingPong(f *flag.FlagSet) run {
	count := f.Int("count", 1000, "round trips")
	size := f.Int("size", 64, "bytes of a message")
	limit := f.Duration("timeout", time.Minute, "for the whole")
	return func(ctx context.Context, args []string) (any, error) {
		conn, err := dial(ctx, "tcp", args[0], *limit)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		message, buf := make([]byte, *size), make([]byte, *size)
		return verdict(parallel(ctx, *count, 1, func(context.Context, int) error {
			return exchange(conn, message, buf)
		}))
	}
}

func setupHTTP(f *flag.FlagSet) run {
	count := f.Int("count", 1000, "requests in all, each on a new connection")
	workers := f.Int("parallel", 1, "at the same time")
	limit := f.Duration("timeout", 10*time.Second, "for each request")
	return func(ctx context.Context, args []string) (any, error) {
		client := &http.Client{Timeout: *limit, Transport: &http.Transport{DisableKeepAlives: true}}
		return verdict(parallel(ctx, *count, *workers, func(ctx context.Context, _ int) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return errors.New(resp.Status)
			}
			_, err = io.Copy(io.Discard, resp.Body)
			return err
		}))
	}
}

func setupPut(f *flag.FlagSet) run {
	count := f.Int("count", 1, "requests in all")
	workers := f.Int("parallel", 1, "at the same time")
	size := f.Int64("size", 20<<20, "bytes of a body")
	limit := f.Duration("timeout", 5*time.Minute, "for each request")
	return func(ctx context.Context, args []string) (any, error) {
		client := &http.Client{Timeout: *limit, Transport: &http.Transport{DisableKeepAlives: true}}
		return verdict(parallel(ctx, *count, *workers, func(ctx context.Context, _ int) error {
			return put(ctx, client, args[0], *size)
		}))
	}
}

func put(ctx context.Context, client *http.Client, url string, size int64) error {
	body := make([]byte, size)
	if _, err := rand.Read(body); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	back, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if !bytes.Equal(body, back) {
		return fmt.Errorf("sent %d bytes, got %d others back", len(body), len(back))
	}
	return nil
}
