package labnet

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serveTCP serves handle on a loopback port until the test ends.
func serveTCP(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); handle(c) }()
		}
	}()
	return l.Addr().String()
}

// client runs a client as its command line would.
func client(t *testing.T, setup func(*flag.FlagSet) run, args ...string) (any, error) {
	t.Helper()
	f := flag.NewFlagSet("test", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	run := setup(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return run(ctx, f.Args())
}

func TestConnectionClients(t *testing.T) {
	echo, closer := serveTCP(t, echoTCP), serveTCP(t, closeFirst)
	silent := serveTCP(t, func(net.Conn) {})
	wrong := serveTCP(t, func(c net.Conn) { _, _ = c.Write(make([]byte, 64)) })
	tests := []struct {
		name   string
		setup  func(*flag.FlagSet) run
		args   []string
		ok     int
		failed int
	}{
		{"concurrent", setupConnections, []string{"--count", "50", echo}, 50, 0},
		{"short, closed by the client", setupShort, []string{"--count", "20", echo}, 20, 0},
		{"short, closed by the server", setupShort, []string{"--count", "20", "--parallel", "4", "--close", "server", closer}, 20, 0},
		{"round trips", setupPingPong, []string{"--count", "10", echo}, 10, 0},
		{"closed without an echo", setupShort, []string{"--count", "3", silent}, 0, 3},
		{"echoing something else", setupShort, []string{"--count", "3", wrong}, 0, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			result, err := client(t, tt.setup, tt.args...)
			o, _ := result.(Outcome)
			if o.OK != tt.ok || o.Failed != tt.failed || (err != nil) != (tt.failed > 0) {
				t.Errorf("%+v, %v; want %d and %d", o, err, tt.ok, tt.failed)
			}
		})
	}
}

func TestStreams(t *testing.T) {
	up, err := client(t, setupUp, "--duration", "100ms", "--flows", "2", serveTCP(t, discard))
	if err != nil || up.(Throughput).Bits <= 0 {
		t.Errorf("up: %+v, %v", up, err)
	}
	down, err := client(t, setupDown, "--duration", "100ms", serveTCP(t, source))
	if err != nil || down.(Throughput).Bytes <= 0 {
		t.Errorf("down: %+v, %v", down, err)
	}
	if r, err := client(t, setupDown, "--duration", "5s", serveTCP(t, closeFirst)); err == nil {
		t.Errorf("a source that closes early passes: %+v", r)
	}
	session, err := client(t, setupSession, "--duration", "100ms", "--interval", "10ms", serveTCP(t, echoTCP))
	if err != nil || session.(Session).Echoes < 2 {
		t.Errorf("session: %+v, %v", session, err)
	}
}

// udpEcho echoes all but every drop-th datagram.
func udpEcho(t *testing.T, drop int) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 64<<10)
		for i := 1; ; i++ {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if drop == 0 || i%drop != 0 {
				_, _ = conn.WriteTo(buf[:n], from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

func TestUDPCountsLoss(t *testing.T) {
	for _, args := range [][]string{
		{"--size", "1"}, {"--size", "25000"}, {"--size", "1200", "--rate", "100e6"},
	} {
		r, err := client(t, setupUDP, append(args, "--count", "20", udpEcho(t, 0))...)
		if d := r.(Datagrams); err != nil || d.Sent != 20 || d.Lost != 0 {
			t.Errorf("%v: %+v, %v", args, d, err)
		}
		r, err = client(t, setupUDP, append(args, "--count", "20", "--wait", "20ms", udpEcho(t, 2))...)
		if d := r.(Datagrams); err != nil || d.Lost != 10 {
			t.Errorf("%v with loss: %+v, %v", args, d, err)
		}
	}
}

func TestHandler(t *testing.T) {
	srv := httptest.NewServer(Handler())
	defer srv.Close()
	get := func(path string) (*http.Response, string) {
		resp, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	resp, body := get("/ip")
	var who map[string]string
	if err := json.Unmarshal([]byte(body), &who); err != nil || !strings.HasPrefix(who["client"], "127.0.0.1:") {
		t.Errorf("/ip says %q (%v)", body, err)
	}
	if resp.Close {
		t.Error("the server closes after /ip")
	}
	if resp, _ := get("/close"); !resp.Close {
		t.Error("the server does not close after /close")
	}
	if resp, _ := get("/bytes?n=0&close=1"); !resp.Close {
		t.Error("the server does not close when asked to")
	}
	if _, body := get("/bytes?n=100000"); len(body) != 100000 {
		t.Errorf("/bytes sent %d", len(body))
	}
	for path, want := range map[string]int{"/nothing": 404, "/bytes?n=-1": 400, "/bytes?n=x": 400, "/slow?ms=1": 200, "/healthz": 200} {
		if resp, _ := get(path); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	r, err := client(t, setupPut, "--size", "3000000", "--count", "4", "--parallel", "2", srv.URL+"/upload")
	if o := r.(Outcome); err != nil || o.OK != 4 {
		t.Errorf("put: %+v, %v", o, err)
	}
	r, err = client(t, setupPut, "--size", "3000", srv.URL+"/sha")
	if o := r.(Outcome); err == nil || o.Failed != 1 {
		t.Errorf("put to what answers otherwise: %+v, %v", o, err)
	}
	if r, err := client(t, setupHTTP, "--count", "20", "--parallel", "4", srv.URL+"/"); err != nil {
		t.Errorf("http: %+v, %v", r, err)
	}
}

func TestSummarize(t *testing.T) {
	var took []time.Duration
	for i := 100; i >= 1; i-- {
		took = append(took, time.Duration(i)*time.Millisecond)
	}
	if got := summarize(took); got.P50 != 51 || got.P95 != 96 || got.Max != 100 {
		t.Errorf("summarize = %+v", got)
	}
	if got := summarize(nil); got != (Latency{}) {
		t.Errorf("of nothing: %+v", got)
	}
}
