package helper

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// set brings the network to a state and logs what was done.
func (s *session) set(ctx context.Context, state hostnet.State) error {
	changes, err := hostnet.Set(ctx, s.Host, s.scope(), state)
	for _, c := range changes {
		s.Log.Debug("changed", "command", c.String())
	}
	if len(changes) > 0 {
		s.Log.Info("network set", "changes", len(changes), "interface", state.Interface, "routes", len(state.Routes))
	}
	return err
}

// handleApply brings network and resolver to a state. The resolver is hooked up last and only if the
// rest is there, and let go first.
func (s *session) handleApply(ctx context.Context, state hostnet.State, now time.Time) error {
	if s.open.Interface == "" {
		return refuse("no interface is open")
	}
	limits, err := LoadLimits(s.Paths.Limits)
	if err != nil {
		return err
	}
	if err := limits.checkState(state, s.open); err != nil {
		return err
	}
	if !s.Host.HasIPv6() {
		state = withoutIPv6(state)
	}
	if state.DNS.IsZero() {
		if err := s.dns.Set(state.DNS); err != nil {
			return err
		}
	}
	held := s.hold(state, now)
	if err := s.set(ctx, held); err != nil {
		return err
	}
	s.wanted, s.applied = state, held
	if s.dns.Began.IsZero() {
		s.dns.Began = now // of several connections the first hooked up is the first
	}
	return s.dns.Set(state.DNS)
}

// handleReset ends the sockets that were made through the tunnel and lead into prefixes.
func (s *session) handleReset(prefixes []netip.Prefix, established bool) (int, error) {
	if s.open.Interface == "" {
		return 0, refuse("no interface is open")
	}
	limits, err := LoadLimits(s.Paths.Limits)
	if err != nil {
		return 0, err
	}
	if err := limits.checkReset(prefixes); err != nil {
		return 0, err
	}
	which := hostnet.Sockets{Targets: prefixes, Established: established}
	for _, p := range s.open.Addresses {
		which.Sources = append(which.Sources, p.Addr())
	}
	n, err := s.Host.DestroySockets(which)
	s.Log.Info("sockets through the tunnel are ended", "sockets", n, "prefixes", len(prefixes))
	return n, err
}

// withoutIPv6 returns what a kernel without IPv6 can do of a state.
func withoutIPv6(s hostnet.State) hostnet.State {
	s.Priority.V6, s.SkipMarks.V6 = 0, nil
	s.Routes = slices.DeleteFunc(slices.Clone(s.Routes), func(r hostnet.Route) bool { return r.Prefix.Addr().Is6() })
	return s
}
