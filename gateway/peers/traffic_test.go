package peers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/gateway/tunnel"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

func TestLedger(t *testing.T) {
	p := peer("a", 0, "245.0.0.2/32", func(p *v1alpha1.Peer) { p.Status.ReceivedBytes, p.Status.SentBytes = 1000, 10 })
	l, served := ledger{}, []tunnel.Peer{{Name: "a", ID: "uid-a", Key: keyOf("ka")}}
	device := func(key string, received, sent int64, handshake time.Time) []wgtypes.Peer {
		return []wgtypes.Peer{{PublicKey: keyOf(key), ReceiveBytes: received, TransmitBytes: sent, LastHandshakeTime: handshake}}
	}
	for _, step := range []struct {
		name   string
		served []tunnel.Peer
		device []wgtypes.Peer
		now    time.Time
		want   string
	}{
		{"taken up from the status", served, nil, noon, "1000/10 never"},
		{"no handshake yet (the Unix epoch)", served, device("ka", 0, 148, time.Unix(0, 0)), noon, "1000/158 never"},
		{"first traffic", served, device("ka", 50, 200, noon), noon, "1050/210 12:00 apiserver"},
		{"more", served, device("ka", 70, 200, noon), noon.Add(time.Minute), "1070/210 12:00 apiserver"},
		{"the peer was configured anew", served, device("ka", 5, 1, time.Time{}), noon.Add(2 * time.Minute), "1075/211 12:00 apiserver"},
		{"nothing for long", served, device("ka", 5, 1, time.Time{}), noon.Add(4 * time.Minute), "1075/211 12:00"},
		{"another key", []tunnel.Peer{{Name: "a", ID: "uid-a", Key: keyOf("kb")}}, device("kb", 9, 9, noon.Add(5*time.Minute)), noon.Add(5 * time.Minute), "1084/220 12:05 apiserver"},
		{"not served", nil, nil, noon.Add(9 * time.Minute), "1084/220 12:05 apiserver"},
	} {
		l.read([]v1alpha1.Peer{p}, step.served, step.device, step.now)
		tr := l.totals()[p.UID]
		got := fmt.Sprintf("%d/%d never", tr.Received, tr.Sent)
		if !tr.LastHandshake.IsZero() {
			got = fmt.Sprintf("%d/%d %s", tr.Received, tr.Sent, tr.LastHandshake.Format("15:04"))
		}
		if got = strings.TrimSpace(got + " " + tr.CarrierInUse); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
	l.read(nil, nil, nil, noon)
	if len(l) != 0 {
		t.Error("the account of a Peer that is gone stays")
	}
}
