package kube

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
)

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// dialled remembers which addresses the client's connections really go to: those of the API server,
// or of the proxy before it.
type dialled struct {
	mu    sync.Mutex
	addrs map[netip.AddrPort]struct{} // guarded by mu
}

func newDialled() *dialled { return &dialled{addrs: map[netip.AddrPort]struct{}{}} }

func (d *dialled) wrap(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			d.add(tcp.AddrPort())
		}
		return conn, nil
	}
}

func (d *dialled) add(a netip.AddrPort) {
	a = netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs[a] = struct{}{}
}

func (d *dialled) list() []netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]netip.AddrPort, 0, len(d.addrs))
	for a := range d.addrs {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// Dialled returns the addresses that connections to the API server (or its proxy) were made to so
// far, sorted. They must stay outside the tunnel.
func (c *Client) Dialled() []netip.AddrPort { return c.dialled.list() }
