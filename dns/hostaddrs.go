package dns

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	hostAddrsMiss = time.Second      // an unknown address is looked for again after
	hostAddrsHit  = 30 * time.Second // a known address is believed for
)

// HostAddrs knows this host's own addresses. The zero value is ready; it reads them when asked, and again when what it
// read is old. Its Contains fits [Options.AllowedSource] and [Options.Own].
type HostAddrs struct {
	mu    sync.Mutex
	addrs map[netip.Addr]bool
	read  time.Time
	list  func() ([]net.Addr, error) // for tests; nil is net.InterfaceAddrs
}

// Contains reports whether addr is an address of one of this host's interfaces. If they cannot be read, what was read
// last holds.
func (h *HostAddrs) Contains(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	h.mu.Lock()
	defer h.mu.Unlock()
	age := time.Since(h.read)
	if known := h.addrs[addr]; known && age >= hostAddrsHit || !known && age >= hostAddrsMiss {
		h.refreshLocked()
	}
	return h.addrs[addr]
}

func (h *HostAddrs) refreshLocked() {
	list := h.list
	if list == nil {
		list = net.InterfaceAddrs
	}
	h.read = time.Now()
	found, err := list()
	if err != nil {
		return
	}
	h.addrs = make(map[netip.Addr]bool, len(found))
	for _, a := range found {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			h.addrs[prefix.Addr().Unmap().WithZone("")] = true
		}
	}
}
