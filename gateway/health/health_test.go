package health

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestPages(t *testing.T) {
	defer goleak.VerifyNone(t)
	var ready atomic.Bool
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "culvert_test"}))
	s := &Server{Live: func() error { return nil }, Metrics: metrics, Log: slog.New(slog.DiscardHandler),
		Ready: func() error {
			if !ready.Load() {
				return errors.New("Peers are not known yet")
			}
			return nil
		}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, listener) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(method, path string) (int, string) {
		req, _ := http.NewRequest(method, "http://"+listener.Addr().String()+path, nil)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	for _, step := range []struct {
		method, path string
		ready        bool
		code         int
		body         string
	}{
		{"GET", "/healthz", false, 200, "ok"},
		{"GET", "/readyz", false, 503, "Peers are not known yet"},
		{"GET", "/readyz", true, 200, "ok"},
		{"GET", "/metrics", true, 200, "culvert_test"},
		{"POST", "/readyz", true, 405, ""},
		{"GET", "/debug/pprof", true, 404, ""},
	} {
		ready.Store(step.ready)
		if code, body := get(step.method, step.path); code != step.code || !strings.Contains(body, step.body) {
			t.Errorf("%s %s: %d %q", step.method, step.path, code, body)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
