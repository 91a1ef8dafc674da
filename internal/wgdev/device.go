package wgdev

import (
	"fmt"
	"log/slog"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Device is a running WireGuard device. Make it with New and end it with Close. Safe for concurrent use.
type Device struct {
	name string
	dev  *device.Device
	log  *slog.Logger
	mu   sync.Mutex // held by Configure from reading the state to changing it
}

// New starts a device over a TUN and a bind; both are closed with it, also when New fails. It has neither
// key nor peers until Configure. A nil log discards.
func New(tun tun.Device, bind conn.Bind, log *slog.Logger) (*Device, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	name, err := tun.Name()
	if err != nil {
		tun.Close()
		return nil, fmt.Errorf("name of the TUN device: %w", err)
	}
	dev := device.NewDevice(tun, bind, logger(log))
	// Whatever authenticated packet comes from wherever, a peer given an endpoint stays there.
	dev.DisableSomeRoamingForBrokenMobileSemantics()
	if err := dev.Up(); err != nil {
		dev.Close()
		return nil, fmt.Errorf("bring up WireGuard on %s: %w", name, err)
	}
	return &Device{name: name, dev: dev, log: log}, nil
}

// Nudge makes the device send something to a peer now: a keepalive, or a handshake when there is no
// session. The peer then knows the way back. An unknown key does nothing.
func (d *Device) Nudge(peer wgtypes.Key) {
	if p := d.dev.LookupPeer(device.NoisePublicKey(peer)); p != nil {
		p.SendKeepalive()
	}
}

// Done is closed when the device has ended: by Close, or because its TUN failed.
func (d *Device) Done() <-chan struct{} { return d.dev.Wait() }

// Close ends the device, its TUN and its bind, and waits. Repeated calls do nothing.
func (d *Device) Close() { d.dev.Close() }
