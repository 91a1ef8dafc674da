package wgdev

import (
	"encoding/hex"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Hex returns a key as the configuration protocol writes it.
func Hex(k wgtypes.Key) string { return hex.EncodeToString(k[:]) }

// Peer returns wireguard-go's own peer, for a test to keep it alive: its finalizer must not run outside the
// synctest bubble it was made in.
func (d *Device) Peer(k wgtypes.Key) any { return d.dev.LookupPeer(device.NoisePublicKey(k)) }
