//go:build !linux

package dataplane

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"syscall"
)

var errPlatform = fmt.Errorf("the userspace data plane runs on Linux only, not on %s: %w", runtime.GOOS, errors.ErrUnsupported)

type datagramSocket struct{}

func readChunk(syscall.RawConn) (*[]byte, int, error)    { return nil, 0, errPlatform }
func shareAddress(string, string, syscall.RawConn) error { return errPlatform }
func openUDP(netip.AddrPort) (*datagramSocket, error)    { return nil, errPlatform }
func openPing(netip.Addr) (*datagramSocket, error)       { return nil, errPlatform }
func (s *datagramSocket) send([]byte) error              { return errPlatform }
func (s *datagramSocket) receive(func([]byte)) error     { return errPlatform }
func (s *datagramSocket) close()                         {}
func boundFlows(wanted int, _ *slog.Logger) int          { return max(wanted, 1) }
