package wgdev

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"go4.org/netipx"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Configure changes the device. Fields mean what they mean to wgctrl, nil leaves things as they are,
// but only the difference is applied: with ReplacePeers a listed peer that is there already keeps its
// session and the endpoint it roamed to, unless another is given, and with ReplaceAllowedIPs a prefix that
// stays is never missing for a moment. A bad value changes nothing.
func (d *Device) Configure(config wgtypes.Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	actual, err := d.Status()
	if err != nil {
		return err
	}
	text, err := difference(actual, config)
	if err != nil {
		return fmt.Errorf("configure WireGuard on %s: %w", d.name, err)
	}
	if text == "" {
		return nil
	}
	if err := d.dev.IpcSet(text); err != nil {
		return fmt.Errorf("configure WireGuard on %s: %w", d.name, err)
	}
	return nil
}

// Status returns the device as it is. PrivateKey and the peers' PresharedKey are left zero, so that a
// status can be shown.
func (d *Device) Status() (wgtypes.Device, error) {
	text, err := d.dev.IpcGet()
	if err != nil {
		return wgtypes.Device{}, fmt.Errorf("read WireGuard on %s: %w", d.name, err)
	}
	status, err := parseDevice(text)
	status.Name = d.name
	return status, err
}

// difference returns what to set on actual to get to config, in the words of the configuration protocol.
func difference(actual wgtypes.Device, config wgtypes.Config) (string, error) {
	var b strings.Builder
	set := func(key string, value any) { fmt.Fprintf(&b, "%s=%v\n", key, value) }
	if k := config.PrivateKey; k != nil {
		set("private_key", hex.EncodeToString(k[:]))
	}
	if config.ListenPort != nil {
		set("listen_port", *config.ListenPort)
	}
	if config.FirewallMark != nil {
		set("fwmark", *config.FirewallMark)
	}
	have := map[wgtypes.Key]wgtypes.Peer{}
	for _, p := range actual.Peers {
		have[p.PublicKey] = p
	}
	for _, p := range config.Peers {
		old, known := have[p.PublicKey]
		if config.ReplacePeers && known {
			p = replacing(p)
		}
		if err := peerDifference(set, old, known, p); err != nil {
			return "", fmt.Errorf("peer %s…: %w", p.PublicKey.String()[:8], err)
		}
	}
	if config.ReplacePeers { // last: a prefix that moves from such a peer to another is never missing
		for _, p := range unlisted(actual.Peers, config.Peers) {
			set("public_key", hex.EncodeToString(p[:]))
			set("remove", true)
		}
	}
	return b.String(), nil
}

// unlisted returns the keys of the peers that are not in the list.
func unlisted(actual []wgtypes.Peer, list []wgtypes.PeerConfig) (keys []wgtypes.Key) {
	listed := map[wgtypes.Key]bool{}
	for _, p := range list {
		listed[p.PublicKey] = true
	}
	for _, p := range actual {
		if !listed[p.PublicKey] {
			keys = append(keys, p.PublicKey)
		}
	}
	return keys
}

// replacing returns p such that applied to an existing peer it leaves what it would leave on a new one.
func replacing(p wgtypes.PeerConfig) wgtypes.PeerConfig {
	p.ReplaceAllowedIPs = true
	if p.PresharedKey == nil {
		p.PresharedKey = new(wgtypes.Key)
	}
	if p.PersistentKeepaliveInterval == nil {
		p.PersistentKeepaliveInterval = new(time.Duration)
	}
	return p
}

func peerDifference(set func(string, any), old wgtypes.Peer, known bool, p wgtypes.PeerConfig) error {
	if p.PublicKey == (wgtypes.Key{}) {
		return errors.New("no public key")
	}
	if !known && (p.Remove || p.UpdateOnly) {
		return nil
	}
	set("public_key", hex.EncodeToString(p.PublicKey[:]))
	if p.Remove {
		set("remove", true)
		return nil
	}
	if p.UpdateOnly {
		set("update_only", true)
	}
	if p.PresharedKey != nil {
		set("preshared_key", hex.EncodeToString(p.PresharedKey[:]))
	}
	if p.Endpoint != nil {
		addr, ok := netipx.FromStdAddr(p.Endpoint.IP, p.Endpoint.Port, p.Endpoint.Zone)
		if !ok {
			return fmt.Errorf("endpoint %s is not an address and port", p.Endpoint)
		}
		set("endpoint", addr)
	}
	if p.PersistentKeepaliveInterval != nil {
		set("persistent_keepalive_interval", int(p.PersistentKeepaliveInterval.Seconds()))
	}
	return allowedDifference(set, old, p)
}

// allowedDifference sets AllowedIPs: what is new first, what is gone after it.
func allowedDifference(set func(string, any), old wgtypes.Peer, p wgtypes.PeerConfig) error {
	want := map[netip.Prefix]bool{}
	for i := range p.AllowedIPs {
		prefix, ok := netipx.FromStdIPNet(&p.AllowedIPs[i])
		if !ok {
			return fmt.Errorf("allowed IP %s is not a prefix", &p.AllowedIPs[i])
		}
		want[prefix.Masked()] = true
		set("allowed_ip", prefix.Masked())
	}
	if !p.ReplaceAllowedIPs {
		return nil
	}
	for i := range old.AllowedIPs {
		if prefix, _ := netipx.FromStdIPNet(&old.AllowedIPs[i]); !want[prefix] {
			set("allowed_ip", "-"+prefix.String())
		}
	}
	return nil
}
