package dataplane

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/conn/bindtest"
	wireguard "golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/netstack"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// The plane behind a real WireGuard device, a Peer behind another.
func TestThroughWireGuard(t *testing.T) {
	p := newPlane(t, Config{ServeDNS: echoLocal}) // the workstation's stack takes no answers from loopback
	tunDevice, workstation, err := netstack.CreateNetTUN([]netip.Addr{node4, node6}, nil, 1420)
	if err != nil {
		t.Fatal(err)
	}
	nodeKey, gatewayKey := newKey(t), newKey(t)
	binds := bindtest.NewChannelBinds()
	gateway := wireGuard(t, p.TUN(), binds[0], gatewayKey, nodeKey.PublicKey(), 1, "245.1.2.4/32", "fd00:245::4/128")
	wireGuard(t, tunDevice, binds[1], nodeKey, gatewayKey.PublicKey(), 2, "0.0.0.0/0", "::/0")

	to := netip.AddrPortFrom(gateway4, dnsPort)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tcp, err := workstation.DialContextTCPAddrPort(ctx, to)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	body := bytes.Repeat([]byte("through the tunnel"), 20000)
	go tcp.Write(body)
	tcp.SetReadDeadline(time.Now().Add(20 * time.Second))
	got := make([]byte, len(body))
	if _, err := io.ReadFull(tcp, got); err != nil || !bytes.Equal(got, body) {
		t.Fatalf("echo: %v", err)
	}
	udp, err := workstation.DialUDPAddrPort(netip.AddrPort{}, to)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, size := range []int{1, 1200, 9000} {
		udp.Write(body[:size])
		udp.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := udp.Read(got); err != nil || !bytes.Equal(got[:n], body[:size]) {
			t.Fatalf("datagram of %d bytes: %d, %v", size, n, err)
		}
	}
	gateway.Close() // closes the plane, with a connection open
	if n := p.flows.Load(); n != 0 {
		t.Errorf("%d flows outlive the device", n)
	}
}

// echoLocal sends back whatever comes.
func echoLocal(streams net.Listener, datagrams net.PacketConn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for b := make([]byte, 65536); ; {
			n, from, err := datagrams.ReadFrom(b)
			if err != nil {
				return
			}
			datagrams.WriteTo(b[:n], from)
		}
	})
	for {
		c, err := streams.Accept()
		if err != nil {
			break
		}
		wg.Go(func() {
			defer c.Close()
			io.Copy(c, c)
		})
	}
	wg.Wait()
}

func newKey(t *testing.T) wgtypes.Key {
	t.Helper()
	k, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// wireGuard starts a device on tunDevice with one peer.
func wireGuard(t *testing.T, tunDevice tun.Device, bind conn.Bind, private, peer wgtypes.Key, endpoint int, allowed ...string) *wireguard.Device {
	t.Helper()
	d := wireguard.NewDevice(tunDevice, bind, wireguard.NewLogger(wireguard.LogLevelSilent, ""))
	t.Cleanup(d.Close)
	config := fmt.Sprintf("private_key=%s\npublic_key=%s\nendpoint=127.0.0.1:%d\n",
		hex.EncodeToString(private[:]), hex.EncodeToString(peer[:]), endpoint)
	for _, a := range allowed {
		config += "allowed_ip=" + a + "\n"
	}
	if err := d.IpcSet(config); err != nil {
		t.Fatal(err)
	}
	if err := d.Up(); err != nil {
		t.Fatal(err)
	}
	return d
}
