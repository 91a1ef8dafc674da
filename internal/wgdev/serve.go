package wgdev

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"
)

// clientTimeout bounds one question and its answer.
const clientTimeout = 5 * time.Second

// ServeUAPI answers the `wg` program on a Unix socket, usually /var/run/wireguard/NAME.sock, until ctx
// ends; then it returns nil. It only shows: changes are refused with EPERM, for the device is configured
// by its own program, which would not notice. It closes the listener. The answer holds the private key,
// so the socket must be root's alone.
func (d *Device) ServeUAPI(ctx context.Context, listener net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer stop()
	tasks.Go(func() {
		<-ctx.Done()
		listener.Close()
	})
	for {
		c, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept on %s: %w", listener.Addr(), err)
		}
		tasks.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			d.answer(c)
		})
	}
}

// answer serves one client, which may ask several times.
func (d *Device) answer(c net.Conn) {
	r := bufio.NewReaderSize(io.LimitReader(c, 1<<20), 4096)
	for {
		c.SetDeadline(time.Now().Add(clientTimeout))
		request, err := readRequest(r)
		if err != nil {
			return
		}
		var answer strings.Builder
		switch request {
		case "get=1":
			err = d.dev.IpcGetOperation(&answer)
		default:
			d.log.Warn("wireguard: a change by another program was refused", "device", d.name)
			err = syscall.EPERM
		}
		fmt.Fprintf(&answer, "errno=%d\n\n", errno(err))
		if _, err := io.WriteString(c, answer.String()); err != nil {
			return
		}
	}
}

// readRequest reads up to the empty line that ends a request and returns its first line.
func readRequest(r *bufio.Reader) (first string, err error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		text := strings.TrimSuffix(string(line), "\n")
		if text == "" {
			return first, nil
		}
		if first == "" {
			first = text
		}
	}
}

// errno returns the number the protocol has for an error, negative as the kernel's.
func errno(err error) int {
	var number syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &number):
		return -int(number)
	default:
		return -int(syscall.EIO)
	}
}
