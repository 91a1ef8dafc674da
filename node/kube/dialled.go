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
	local netip.Addr                  // of the latest connection; guarded by mu
}

func newDialled() *dialled { return &dialled{addrs: map[netip.AddrPort]struct{}{}} }

func (d *dialled) wrap(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		d.note(conn)
		return conn, nil
	}
}

// note remembers where a connection goes and whence.
func (d *dialled) note(conn net.Conn) {
	remote, isTCP := conn.RemoteAddr().(*net.TCPAddr)
	local, _ := conn.LocalAddr().(*net.TCPAddr)
	if isTCP && local != nil {
		d.add(remote.AddrPort(), local.AddrPort().Addr())
	}
}

func (d *dialled) add(a netip.AddrPort, local netip.Addr) {
	a = netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs[a] = struct{}{}
	d.local = local.Unmap().WithZone("")
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

// LocalAddr returns the source address of the latest connection to the API server; the zero Addr
// before the first. It tells the interface that the carrier uses.
func (c *Client) LocalAddr() netip.Addr {
	c.dialled.mu.Lock()
	defer c.dialled.mu.Unlock()
	return c.dialled.local
}
