// Package tunneltest has a WireGuard device and a data plane for tests, that write down what is asked of them
// in the order of asking. It carries no packets.
package tunneltest

import (
	"slices"
	"strings"
	"sync"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/gateway/tunnel"
)

// Host is both device and data plane. Use [NewHost]; it is safe for concurrent use.
type Host struct {
	mu    sync.Mutex
	peers map[wgtypes.Key]wgtypes.Peer
	plane []tunnel.Peer
	steps []string
	fail  error
}

var (
	_ tunnel.WireGuard = (*Host)(nil)
	_ tunnel.Plane     = (*Host)(nil)
)

// NewHost returns one without peers.
func NewHost() *Host { return &Host{peers: map[wgtypes.Key]wgtypes.Peer{}} }

// Key returns a public key that stands for name, of at most 31 bytes.
func Key(name string) (k wgtypes.Key) {
	copy(k[:], name)
	k[31] = 1
	return k
}

// nameOf is the inverse of Key.
func nameOf(k wgtypes.Key) string { return strings.TrimRight(string(k[:31]), "\x00") }

// Configure adds and removes peers, unless it is to fail.
func (h *Host) Configure(cfg wgtypes.Config) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		h.steps = append(h.steps, "wg fails")
		return h.fail
	}
	var words []string
	for _, p := range cfg.Peers {
		if p.Remove {
			delete(h.peers, p.PublicKey)
			words = append(words, "-"+nameOf(p.PublicKey))
			continue
		}
		old := h.peers[p.PublicKey]
		old.PublicKey, old.AllowedIPs = p.PublicKey, p.AllowedIPs
		h.peers[p.PublicKey] = old
		words = append(words, "+"+nameOf(p.PublicKey))
	}
	h.steps = append(h.steps, "wg "+strings.Join(words, " "))
	return nil
}

// Status returns the peers configured.
func (h *Host) Status() (wgtypes.Device, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var d wgtypes.Device
	for _, p := range h.peers {
		d.Peers = append(d.Peers, p)
	}
	return d, nil
}

// SetPeers takes list for the Peers served.
func (h *Host) SetPeers(list []tunnel.Peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.plane = slices.Clone(list)
	words := []string{"plane"}
	for _, p := range list {
		words = append(words, nameOf(p.Key))
	}
	h.steps = append(h.steps, strings.Join(words, " "))
}

// Took returns what was asked since the last call, such as "wg +a -b, plane a".
func (h *Host) Took() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := strings.Join(h.steps, ", ")
	h.steps = nil
	return out
}

// Plane returns the Peers that the data plane admits.
func (h *Host) Plane() []tunnel.Peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.plane)
}

// Admits reports whether packets of the Peer with the key of that name come through.
func (h *Host) Admits(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, configured := h.peers[Key(name)]
	return configured && slices.ContainsFunc(h.plane, func(p tunnel.Peer) bool { return p.Key == Key(name) })
}

// Fail makes Configure return err from now on; nil ends that.
func (h *Host) Fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = err
}

// Change edits the device's peers behind everybody's back.
func (h *Host) Change(edit func(map[wgtypes.Key]wgtypes.Peer)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	edit(h.peers)
}
