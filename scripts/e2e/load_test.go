//go:build lab

package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	l := shared
	l.connect(t, allowFlags...)
	t.Run("short GETs in parallel", func(t *testing.T) {
		must(t, l.Labnet(3*time.Minute, "http", "--count", "600", "--parallel", "20", "http://echo.default/"), "30 rounds of 20 GETs")
	})
	t.Run("1000 connections at once", func(t *testing.T) {
		must(t, l.Labnet(time.Minute, "connections", "--count", "1000", "echo.default:7000"), "1,000 connections")
	})
	t.Run("20000 short connections closed by the client", func(t *testing.T) {
		r := l.Labnet(8*time.Minute, "short", "--count", "20000", "--close", "client", "echo.default:7000")
		must(t, r, "20,000 short connections")
		t.Log(r.Out)
	})
	t.Run("20000 short connections closed by the server", func(t *testing.T) {
		r := l.Labnet(8*time.Minute, "short", "--count", "20000", "--close", "server", "echo.default:7001")
		must(t, r, "20,000 short connections")
		t.Log(r.Out)
	})
	t.Run("13 PUTs of 20 MiB at once", func(t *testing.T) {
		must(t, l.Labnet(3*time.Minute, "put", "--size", "20971520", "--count", "13", "--parallel", "13", "http://echo.default/upload"), "PUTs")
	})
	for _, size := range []int{1, 1200, 9000, 25000} {
		t.Run(fmt.Sprintf("UDP of %d bytes", size), func(t *testing.T) {
			must(t, l.Labnet(time.Minute, "udp", "--size", fmt.Sprint(size), "--count", "20", "echo.default:7000"), "UDP echo")
		})
	}
	t.Run("a reader that never reads", func(t *testing.T) {
		var stalled sync.WaitGroup
		stalled.Go(func() { l.Labnet(time.Minute, "stall", "--flows", "4", "--duration", "10s", "echo.default:7011") })
		defer stalled.Wait()
		time.Sleep(time.Second) // the stalled connections fill every buffer they can
		r := l.Labnet(time.Minute, "http", "--count", "100", "--parallel", "4", "http://echo.default/")
		must(t, r, "GETs beside connections that nobody reads")
		t.Log(r.Out)
	})
}
