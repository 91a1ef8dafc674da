package wgdev

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// parseDevice reads the answer to a get of the configuration protocol
// (https://www.wireguard.com/xplatform/#configuration-protocol). The private and preshared keys are
// left out.
func parseDevice(text string) (wgtypes.Device, error) {
	d := wgtypes.Device{Type: wgtypes.Userspace}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		if err := parseLine(&d, key, value); err != nil {
			return wgtypes.Device{}, fmt.Errorf("WireGuard configuration: %s: %w", key, err)
		}
	}
	return d, lines.Err()
}

func parseLine(d *wgtypes.Device, key, value string) (err error) {
	switch key {
	case "private_key":
		var k wgtypes.Key
		if k, err = parseKey(value); err == nil {
			d.PublicKey = k.PublicKey()
		}
	case "listen_port":
		d.ListenPort, err = strconv.Atoi(value)
	case "fwmark":
		d.FirewallMark, err = strconv.Atoi(value)
	case "public_key":
		p := wgtypes.Peer{}
		p.PublicKey, err = parseKey(value)
		d.Peers = append(d.Peers, p)
	default:
		if n := len(d.Peers); n > 0 {
			return parsePeerLine(&d.Peers[n-1], key, value)
		}
	}
	return err
}

func parsePeerLine(p *wgtypes.Peer, key, value string) (err error) {
	var n int64
	switch key {
	case "endpoint":
		var addr netip.AddrPort
		if addr, err = netip.ParseAddrPort(value); err == nil {
			p.Endpoint = net.UDPAddrFromAddrPort(addr)
		}
	case "allowed_ip":
		var prefix netip.Prefix
		if prefix, err = netip.ParsePrefix(value); err == nil {
			p.AllowedIPs = append(p.AllowedIPs, toIPNet(prefix))
		}
	case "last_handshake_time_sec", "last_handshake_time_nsec":
		n, err = strconv.ParseInt(value, 10, 64)
		p.LastHandshakeTime = addTime(p.LastHandshakeTime, n, key == "last_handshake_time_sec")
	case "tx_bytes":
		p.TransmitBytes, err = strconv.ParseInt(value, 10, 64)
	case "rx_bytes":
		p.ReceiveBytes, err = strconv.ParseInt(value, 10, 64)
	case "persistent_keepalive_interval":
		n, err = strconv.ParseInt(value, 10, 64)
		p.PersistentKeepaliveInterval = time.Duration(n) * time.Second
	case "protocol_version":
		p.ProtocolVersion, err = strconv.Atoi(value)
	}
	return err
}

// addTime puts a time together from its seconds, which come first, and its nanoseconds. Zero stays the
// zero time: no handshake yet.
func addTime(t time.Time, n int64, seconds bool) time.Time {
	switch {
	case n == 0:
		return t
	case seconds:
		return time.Unix(n, 0)
	default:
		return t.Add(time.Duration(n))
	}
}

func parseKey(value string) (wgtypes.Key, error) {
	raw, err := hex.DecodeString(value)
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("not a key in hexadecimal")
	}
	return wgtypes.NewKey(raw)
}

func toIPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
