package helper

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/node/journal"
)

// handleOpen creates the interface and everything that comes over as a descriptor. On failure
// everything is undone.
func (s *session) handleOpen(ctx context.Context, r OpenRequest) (*opened, []fileRole, []*os.File, error) {
	if s.open.Interface != "" {
		return nil, nil, nil, refuse("the interface %s is open already", s.open.Interface)
	}
	if err := checkOpen(r); err != nil {
		return nil, nil, nil, err
	}
	host, err := s.dns.Upstreams()
	if err != nil {
		return nil, nil, nil, err
	}
	var d descriptors
	if err := s.openInterface(ctx, r, &d); err != nil {
		closeAll(d.files)
		return nil, nil, nil, errors.Join(err, s.restore())
	}
	s.before = s.earlier()
	return &opened{Interface: s.open.Interface, Addresses: s.open.Addresses, Host: host, Earlier: s.before}, d.roles, d.files, nil
}

// openInterface makes interface and sockets, each journaled before it is made.
func (s *session) openInterface(ctx context.Context, r OpenRequest, d *descriptors) error {
	addrs := r.Addresses
	if !s.Host.HasIPv6() {
		addrs = slices.DeleteFunc(slices.Clone(addrs), func(p netip.Prefix) bool { return p.Addr().Is6() })
		s.Log.Warn("this kernel has no IPv6; the tunnel has none either")
	}
	tun, err := s.createTUN(r.Interface)
	if err != nil {
		return err
	}
	d.add(roleTUN, tun)
	state := hostnet.State{Interface: s.journal.Network.Interface, MTU: r.MTU, Addresses: addrs}
	if err := s.set(ctx, state); err != nil {
		return err
	}
	s.open, s.wanted, s.applied = state, state, state
	uapi := s.Paths.uapiSocket(state.Interface)
	s.journal.Sockets = []string{uapi}
	if err := s.store.Save(s.journal); err != nil {
		return err
	}
	if err := d.listenUAPI(uapi); err != nil {
		return err
	}
	if err := s.listenDNS(ctx, d, addrs); err != nil {
		return err
	}
	s.startWatch()
	return nil
}

// createTUN creates the interface of that name, or chooses one.
func (s *session) createTUN(name string) (*os.File, error) {
	var err error
	for _, candidate := range candidates(s.Name, name) {
		var tun *os.File
		if tun, err = s.tryTUN(candidate); !errors.Is(err, hostnet.ErrForeign) {
			return tun, err
		}
	}
	return nil, err
}

// candidates returns the interface names to try. The connection "default" has culvert0 or nothing.
func candidates(connection, name string) []string {
	switch {
	case name != "":
		return []string{name}
	case connection == DefaultName:
		return []string{"culvert0"}
	}
	var out []string
	for n := 1; hostnet.InterfaceOfTable(hostnet.Table("culvert0")+n) != ""; n++ {
		out = append(out, fmt.Sprintf("culvert%d", n))
	}
	return out
}

// tryTUN creates one interface, journaled before and, with its number, after.
func (s *session) tryTUN(name string) (*os.File, error) {
	s.journal.Network = &journal.Network{Interface: name, Table: hostnet.Table(name)}
	if err := s.store.Save(s.journal); err != nil {
		return nil, err
	}
	tun, index, err := s.Host.CreateTUN(s.scope())
	if err != nil {
		s.journal.Network = nil // nothing was made, and what is there is not ours
		return nil, errors.Join(err, s.store.Remove(s.Name))
	}
	s.journal.Network.Index = index
	if err := s.store.Save(s.journal); err != nil {
		_ = tun.Close()
		return nil, err
	}
	return tun, nil
}

// scope names what is ours.
func (s *session) scope() hostnet.Scope {
	n := s.journal.Network
	return hostnet.Scope{Name: s.Name, Interface: n.Interface, Index: n.Index}
}
