package labnet

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Throughput is what up and down print.
type Throughput struct {
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	Bits    float64 `json:"bits_per_second"`
	Flows   int     `json:"flows"`
}

func setupUp(f *flag.FlagSet) run {
	return setupThroughput(f, func(conn net.Conn, block []byte) (int, error) { return conn.Write(block) })
}

func setupDown(f *flag.FlagSet) run {
	return setupThroughput(f, func(conn net.Conn, block []byte) (int, error) { return conn.Read(block) })
}

// setupThroughput counts what move carries over so many connections until time
// is up.
func setupThroughput(f *flag.FlagSet, move func(net.Conn, []byte) (int, error)) run {
	duration := f.Duration("duration", 5*time.Second, "how long to measure")
	flows := f.Int("flows", 1, "TCP connections")
	return func(ctx context.Context, args []string) (any, error) {
		conns := make([]net.Conn, 0, *flows)
		defer func() {
			for _, conn := range conns {
				conn.Close()
			}
		}()
		for range *flows {
			conn, err := dial(ctx, "tcp", args[0], 10*time.Second)
			if err != nil {
				return nil, err
			}
			conns = append(conns, conn)
		}
		return pump(ctx, conns, *duration, move)
	}
}

func pump(ctx context.Context, conns []net.Conn, duration time.Duration, move func(net.Conn, []byte) (int, error)) (any, error) {
	begin := time.Now()
	end := begin.Add(duration)
	var total atomic.Int64
	errs := make([]error, len(conns))
	var wait sync.WaitGroup
	for i, conn := range conns {
		if err := conn.SetDeadline(end); err != nil {
			return nil, err
		}
		wait.Go(func() {
			block := make([]byte, 256<<10)
			for errs[i] == nil && ctx.Err() == nil {
				n, err := move(conn, block)
				total.Add(int64(n))
				errs[i] = err
			}
		})
	}
	wait.Wait()
	took := time.Since(begin).Seconds()
	result := Throughput{Bytes: total.Load(), Seconds: took, Bits: float64(total.Load()) * 8 / took, Flows: len(conns)}
	for _, err := range errs {
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			return result, fmt.Errorf("a connection ended before its time: %w", errors.Join(err, ctx.Err()))
		}
	}
	return result, nil
}

// Datagrams is what udp prints.
type Datagrams struct {
	Sent     int     `json:"sent"`
	Received int     `json:"received"`
	Lost     int     `json:"lost"`
	Size     int     `json:"size"`
	Seconds  float64 `json:"seconds"`
	Latency
}

func setupUDP(f *flag.FlagSet) run {
	size := f.Int("size", 1200, "bytes of a datagram, 1 to 65507; from 8 on it carries a number")
	count := f.Int("count", 100, "datagrams")
	rate := f.Float64("rate", 0, "bits per second to send at; 0 sends each after the echo of the one before")
	wait := f.Duration("wait", time.Second, "for an echo")
	return func(ctx context.Context, args []string) (any, error) {
		if *size < 1 || *size > 65507 {
			return nil, fmt.Errorf("--size %d: want 1 to 65507", *size)
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "udp", args[0])
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		result := Datagrams{Size: *size}
		begin := time.Now()
		if *rate > 0 && *size >= 8 {
			err = result.stream(ctx, conn, *count, *rate, *wait)
		} else {
			err = result.pingPong(ctx, conn, *count, *wait)
		}
		result.Seconds = time.Since(begin).Seconds()
		result.Lost = result.Sent - result.Received
		if err == nil && result.Received == 0 {
			err = errors.New("no echo came back")
		}
		return result, err
	}
}

// pingPong sends one datagram at a time.
func (d *Datagrams) pingPong(ctx context.Context, conn net.Conn, count int, wait time.Duration) error {
	var took []time.Duration
	message, buf := make([]byte, d.Size), make([]byte, 64<<10)
	for i := 0; i < count && ctx.Err() == nil; i++ {
		message[0] = byte(i)
		begin := time.Now()
		if _, err := conn.Write(message); err != nil {
			return err
		}
		d.Sent++
		_ = conn.SetReadDeadline(begin.Add(wait))
		n, err := conn.Read(buf)
		switch {
		case err == nil && n == d.Size && buf[0] == message[0]:
			d.Received++
			took = append(took, time.Since(begin))
		case err == nil:
			return fmt.Errorf("datagram %d of %d bytes came back as %d others", i, d.Size, n)
		}
	}
	d.Latency = summarize(took)
	return nil
}

// stream sends at a rate and counts the echoes, whatever their order.
func (d *Datagrams) stream(ctx context.Context, conn net.Conn, count int, rate float64, wait time.Duration) error {
	sentAt := make([]time.Time, count)
	var mu sync.Mutex // guards sentAt
	received := make(chan []time.Duration, 1)
	go func() {
		var took []time.Duration
		seen := make([]bool, count)
		buf := make([]byte, 64<<10)
		for len(took) < count {
			n, err := conn.Read(buf)
			if err != nil {
				break
			}
			i := int(binary.BigEndian.Uint64(buf))
			if n != d.Size || i >= count || seen[i] {
				continue
			}
			seen[i] = true
			mu.Lock()
			took = append(took, time.Since(sentAt[i]))
			mu.Unlock()
		}
		received <- took
	}()
	gap := time.Duration(float64(d.Size*8) / rate * float64(time.Second))
	message := make([]byte, d.Size)
	begin := time.Now()
	for i := 0; i < count && ctx.Err() == nil; i++ {
		if ahead := time.Until(begin.Add(time.Duration(i) * gap)); ahead > 500*time.Microsecond {
			time.Sleep(ahead)
		}
		binary.BigEndian.PutUint64(message, uint64(i))
		mu.Lock()
		sentAt[i] = time.Now()
		mu.Unlock()
		if _, err := conn.Write(message); err == nil {
			d.Sent++
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	took := <-received
	d.Received = len(took)
	d.Latency = summarize(took)
	return nil
}

// Session is what session prints.
type Session struct {
	Echoes int     `json:"echoes"`
	MaxGap float64 `json:"max_gap_ms"` // longest time from sending to the echo
	Local  string  `json:"local"`
}

func setupSession(f *flag.FlagSet) run {
	duration := f.Duration("duration", 30*time.Second, "how long to keep the connection")
	interval := f.Duration("interval", 200*time.Millisecond, "between echoes")
	limit := f.Duration("timeout", 2*time.Minute, "for one echo")
	return func(ctx context.Context, args []string) (any, error) {
		conn, err := dial(ctx, "tcp", args[0], 10*time.Second)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		s := Session{Local: conn.LocalAddr().String()}
		buf := make([]byte, 64)
		for end := time.Now().Add(*duration); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(*interval) {
			begin := time.Now()
			_ = conn.SetDeadline(begin.Add(*limit))
			if err := exchange(conn, fmt.Appendf(nil, "echo %06d", s.Echoes), buf); err != nil {
				return s, err
			}
			s.Echoes++
			s.MaxGap = max(s.MaxGap, milliseconds(time.Since(begin)))
		}
		return s, nil
	}
}

func setupStall(f *flag.FlagSet) run {
	duration := f.Duration("duration", 10*time.Second, "how long to hold the connections")
	flows := f.Int("flows", 1, "connections")
	return func(ctx context.Context, args []string) (any, error) {
		for range *flows {
			conn, err := dial(ctx, "tcp", args[0], 10*time.Second)
			if err != nil {
				return nil, err
			}
			defer conn.Close()
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil { // it flows
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(*duration):
		}
		return map[string]int{"held": *flows}, nil
	}
}
