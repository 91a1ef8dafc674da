//go:build lab

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// download is a long transfer from a service, slow enough to outlive what happens meanwhile.
type download struct {
	file  string
	bytes int64
	done  chan labctl.Result
}

// downloadRate is in bytes per second.
const downloadRate = 1 << 20

// download starts a transfer of about so many seconds. finish must be called.
func (l *lab) download(t *testing.T, seconds int) *download {
	t.Helper()
	d := &download{file: filepath.Join(t.TempDir(), "bytes"), bytes: int64(seconds) * downloadRate, done: make(chan labctl.Result, 1)}
	url := fmt.Sprintf("http://%s/bytes?n=%d", l.EchoIP, d.bytes)
	go func() { // ends by itself; finish waits for it
		d.done <- l.WS(3*time.Minute, "curl", "-sS", "--fail", "--limit-rate", fmt.Sprint(downloadRate), "-o", d.file, url)
	}()
	d.grows(t, "at the begin", 5*time.Second)
	return d
}

// grows waits for more bytes, and returns for how long there were none.
func (d *download) grows(t *testing.T, when string, limit time.Duration) time.Duration {
	t.Helper()
	size := func() int64 {
		info, err := os.Stat(d.file)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	before := size()
	return eventually(t, limit, "more bytes "+when, func() error {
		if len(d.done) > 0 {
			return nil // finish looks at it
		}
		if now := size(); now <= before {
			return fmt.Errorf("still %d bytes", now)
		}
		return nil
	})
}

// finish waits for the end and checks that all came over the one connection.
func (d *download) finish(t *testing.T) {
	t.Helper()
	r := <-d.done
	must(t, r, "the download")
	if info, err := os.Stat(d.file); err != nil || info.Size() != d.bytes {
		t.Errorf("the download is not whole: %v, want %d bytes: %s", info, d.bytes, r)
	}
}

// TestDownloadLivesOn has a VPN come and go that takes the pods and the way to the API server, while a
// download from a service goes on.
func TestDownloadLivesOn(t *testing.T) {
	l := shared
	const routes = "10.20.0.0/16,10.50.0.0/16,10.132.0.0/16"
	for _, x := range []struct{ name, kind string }{{"OpenVPN", "openvpn"}, {"wg-quick", "wireguard"}} {
		t.Run(x.name, func(t *testing.T) {
			l.useVPN(t, x.kind, routes)
			l.vpn(t, "down")
			l.connect(t, yieldFlags...)
			d := l.download(t, 12)
			for range 2 {
				l.vpn(t, "up", x.kind, "--routes", routes)
				up := d.grows(t, "with the VPN up", 10*time.Second)
				if way := l.waysOf(t, l.EchoPod)[l.EchoPod]; through(way) {
					t.Errorf("the pods are still in the tunnel: %s", way)
				}
				l.vpn(t, "down")
				down := d.grows(t, "with the VPN down", 10*time.Second)
				t.Logf("no bytes for %s with the VPN up, and for %s with it down again", up.Round(time.Millisecond), down.Round(time.Millisecond))
			}
			d.finish(t)
		})
	}
}

// closeOffice has the router carry nothing of the workstation's to the company any more, VPN or not.
func (l *lab) closeOffice(t *testing.T) {
	t.Helper()
	const rules = `add table inet e2e
add chain inet e2e forward { type filter hook forward priority 0; }
add rule inet e2e forward iifname "lan0" oifname "edge0" ip daddr 10.0.0.0/8 drop`
	t.Cleanup(func() { must(t, l.Host(5*time.Second, "router", "nft", "delete table inet e2e"), "open the office") })
	must(t, l.Host(5*time.Second, "router", "nft", rules), "close the office")
}

// returnLimit is the longest time from the VPN's return to the tunnel's.
const returnLimit = 3 * time.Second

// TestTunnelReturnsWithTheVPN has the API server reachable only through a VPN that is away for a while.
func TestTunnelReturnsWithTheVPN(t *testing.T) {
	l := shared
	for _, x := range []struct {
		name, kind string
		away       time.Duration
	}{
		{"OpenVPN, away for a moment", "openvpn", 0},
		{"OpenVPN, away for longer than the carrier waits", "openvpn", 15 * time.Second},
		{"Tailscale", "tailscale", 8 * time.Second},
	} {
		t.Run(x.name, func(t *testing.T) {
			l.closeOffice(t)
			l.useVPN(t, x.kind, vpnDefault)
			l.connect(t, allowFlags...)
			d := l.download(t, 5)
			l.vpn(t, "down")
			time.Sleep(x.away) // the situation itself: there is nothing to wait for
			l.vpn(t, "up", x.kind, "--routes", vpnDefault)
			l.soonAnswers(t, "http://"+corpHost+"/") // now the VPN is back
			back := l.soonAnswers(t, "http://"+l.EchoPod+":8080/")
			t.Logf("away for %s; a pod answers %s after the VPN's return", x.away, back.Round(time.Millisecond))
			if back > returnLimit {
				t.Errorf("a pod answers %s after the VPN's return, want %s", back, returnLimit)
			}
			t.Logf("the download went on %s later", d.grows(t, "after the VPN's return", time.Minute).Round(time.Millisecond))
			d.finish(t)
		})
	}
}

// soonAnswers waits until url answers a request and returns how long it took.
func (l *lab) soonAnswers(t *testing.T, url string) time.Duration {
	t.Helper()
	return eventually(t, 20*time.Second, "GET "+url, func() error {
		return l.WS(5*time.Second, "curl", "-sS", "--fail", "--max-time", "0.5", "-o", "/dev/null", url).OK()
	})
}
