package labnet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Reached is what reached prints.
type Reached struct {
	Outcome
	// Answers holds what each name resolved to, "" for one that failed to.
	Answers []string `json:"answers"`
}

func setupReached(f *flag.FlagSet) run {
	count := f.Int("count", 100, "names")
	from := f.Int("from", 0, "number in the first name")
	first := f.String("first", "", "address that the name of number 0 stands for; those after it stand for the next ones")
	network := f.String("network", "tcp", "tcp or udp")
	workers := f.Int("parallel", 8, "names at the same time")
	limit := f.Duration("timeout", 10*time.Second, "for each name and each connection")
	return func(ctx context.Context, args []string) (any, error) {
		host, port, err := net.SplitHostPort(args[0])
		if err != nil {
			return nil, err
		}
		if !strings.Contains(host, "%d") && *count != 1 {
			return nil, fmt.Errorf("%s: want %%d for the number, or --count 1", host)
		}
		base, err := netip.ParseAddr(*first)
		if err != nil {
			return nil, fmt.Errorf("--first: %w", err)
		}
		answers := make([]string, *count)
		outcome := parallel(ctx, *count, *workers, func(ctx context.Context, i int) error {
			ctx, cancel := context.WithTimeout(ctx, *limit)
			defer cancel()
			number := *from + i
			name := strings.Replace(host, "%d", strconv.Itoa(number), 1)
			addr, err := lookup(ctx, name, base.Is4())
			if err != nil {
				return err
			}
			answers[i] = addr.String()
			return check(ctx, *network, net.JoinHostPort(addr.String(), port), plus(base, number))
		})
		result, err := verdict(outcome)
		return Reached{result.(Outcome), answers}, err
	}
}

// lookup returns the one address of a family that a name without search domains has; of an address it is
// that one. Errors are without the name, so that they can be counted.
func lookup(ctx context.Context, name string, is4 bool) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr, nil
	}
	network := "ip6"
	if is4 {
		network = "ip4"
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, strings.TrimSuffix(name, ".")+".")
	var failed *net.DNSError
	switch {
	case errors.As(err, &failed):
		return netip.Addr{}, errors.New("lookup: " + failed.Err)
	case err != nil:
		return netip.Addr{}, err
	case len(addrs) != 1:
		return netip.Addr{}, fmt.Errorf("lookup: %d addresses", len(addrs))
	}
	return addrs[0].Unmap(), nil
}

// errElsewhere is the worst that can happen: an answer of another than who was asked.
var errElsewhere = errors.New("the answer is another's")

// check connects and compares where the other side says that it was reached.
func check(ctx context.Context, network, target string, want netip.Addr) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, target)
	if err != nil {
		return withoutAddresses(err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	buf := make([]byte, 64)
	var n int
	if network == "udp" {
		if _, err = conn.Write([]byte("where?")); err == nil {
			n, err = conn.Read(buf)
		}
	} else {
		n, err = io.ReadFull(conn, buf)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil // it is shorter and the other side closes
		}
	}
	if err != nil {
		return withoutAddresses(err)
	}
	if got := strings.TrimSpace(string(buf[:n])); got != want.String() {
		return fmt.Errorf("%w: %q instead of %s", errElsewhere, got, want)
	}
	return nil
}

// withoutAddresses makes errors of the same kind the same.
func withoutAddresses(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}

// plus returns the n-th address after a.
func plus(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	for i := len(b) - 1; i >= 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	sum, _ := netip.AddrFromSlice(b)
	return sum
}
