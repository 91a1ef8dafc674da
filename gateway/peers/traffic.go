package peers

import (
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/gateway/tunnel"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// carrierAPIServer is the value of status.carrier for packets framed in a port-forward.
const carrierAPIServer = "apiserver"

// heardWithin is how old the latest handshake of a live WireGuard session can be: with packets
// flowing there is a new one every 2 min, tried for 90 s at most (REKEY_AFTER_TIME and
// REKEY_ATTEMPT_TIME of the WireGuard paper, section 6.1).
const heardWithin = 210 * time.Second

// ledger adds up the WireGuard device's counters per Peer. The device forgets them with the pod and
// with a peer's removal; the ledger goes on from what the status says.
type ledger map[types.UID]*account

type account struct {
	traffic      Traffic
	key          wgtypes.Key
	lastReceived int64 // the device's counters when last read
	lastSent     int64
}

// read brings the accounts of the Peers served now up to date and closes those of other Peers.
func (l ledger) read(peers []v1alpha1.Peer, served []tunnel.Peer, device []wgtypes.Peer, now time.Time) {
	byKey := make(map[wgtypes.Key]wgtypes.Peer, len(device))
	for _, d := range device {
		byKey[d.PublicKey] = d
	}
	present := make(map[types.UID]bool, len(peers))
	for _, p := range peers {
		present[p.UID] = true
		if l[p.UID] == nil {
			l[p.UID] = &account{traffic: Traffic{Received: p.Status.ReceivedBytes, Sent: p.Status.SentBytes}}
		}
	}
	for uid := range l {
		if !present[uid] {
			delete(l, uid)
		}
	}
	for _, s := range served {
		if a, d := l[types.UID(s.ID)], byKey[s.Key]; a != nil && d.PublicKey == s.Key {
			a.add(d, now)
		}
	}
}

// add counts what the device saw of a peer since the last time.
func (a *account) add(d wgtypes.Peer, now time.Time) {
	if a.key != d.PublicKey || d.ReceiveBytes < a.lastReceived || d.TransmitBytes < a.lastSent {
		a.key, a.lastReceived, a.lastSent = d.PublicKey, 0, 0
	}
	a.traffic.Received += d.ReceiveBytes - a.lastReceived
	a.traffic.Sent += d.TransmitBytes - a.lastSent
	a.lastReceived, a.lastSent = d.ReceiveBytes, d.TransmitBytes
	if d.LastHandshakeTime.Unix() > 0 {
		a.traffic.LastHandshake = latest(a.traffic.LastHandshake, d.LastHandshakeTime)
	}
	a.traffic.CarrierInUse = ""
	if !a.traffic.LastHandshake.IsZero() && now.Sub(a.traffic.LastHandshake) < heardWithin {
		a.traffic.CarrierInUse = carrierAPIServer
	}
}

// totals returns the present sums.
func (l ledger) totals() map[types.UID]Traffic {
	out := make(map[types.UID]Traffic, len(l))
	for uid, a := range l {
		out[uid] = a.traffic
	}
	return out
}
