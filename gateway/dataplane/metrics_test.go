package dataplane

import (
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetricsCountFlows(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	denied := netip.MustParseAddr("192.0.2.1")
	p := newPlane(t, Config{Metrics: NewMetrics(registry), Permit: func(_ netip.Addr, _ Proto, dst netip.AddrPort) Verdict {
		if dst.Addr() == denied {
			return Deny
		}
		return AllowReserved
	}})
	w := join(t, p)
	c := w.mustDial(serve(t, loopback4, echoTCP))
	c.Write([]byte("x"))
	io.ReadFull(c, make([]byte, 1))
	if _, err := w.dial(netip.AddrPortFrom(denied, 80)); err == nil {
		t.Fatal("a denied connection opened")
	}
	if _, err := w.dial(netip.AddrPortFrom(gateway4, 80)); err == nil {
		t.Fatal("a port of the gateway opened")
	}
	u := w.dialUDP(echoUDP(t, loopback4))
	u.Write([]byte("x"))
	u.SetReadDeadline(time.Now().Add(5 * time.Second))
	u.Read(make([]byte, 1))

	got := gathered(t, registry)
	for series, want := range map[string]float64{
		"culvert_dataplane_flows icmp":              0,
		"culvert_dataplane_flows tcp":               1,
		"culvert_dataplane_flows udp":               1,
		"culvert_dataplane_flows_total tcp denied":  1,
		"culvert_dataplane_flows_total tcp open":    1,
		"culvert_dataplane_flows_total tcp refused": 1,
		"culvert_dataplane_flows_total udp open":    1,
	} {
		if value, ok := got[series]; !ok || value != want {
			t.Errorf("%s is %v, want %v", series, value, want)
		}
	}
	if n := metric(t, p.metrics.fromPeers.bytes); n < 200 {
		t.Errorf("%v bytes from Peers", n)
	}
	if n := metric(t, p.metrics.toPeers.packets); n < 4 {
		t.Errorf("%v packets to Peers", n)
	}
}

// gathered returns the value of each series, named by its metric and label values.
func gathered(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.Metric {
			name := family.GetName()
			for _, label := range m.Label {
				name += " " + label.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}
