package helper

import (
	"context"
	"slices"

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
func (s *session) handleApply(ctx context.Context, state hostnet.State) error {
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
	if err := s.set(ctx, state); err != nil {
		return err
	}
	s.applied = state
	return s.dns.Set(state.DNS)
}

// withoutIPv6 returns what a kernel without IPv6 can do of a state.
func withoutIPv6(s hostnet.State) hostnet.State {
	s.Priority.V6, s.SkipMarks.V6 = 0, nil
	s.Routes = slices.DeleteFunc(slices.Clone(s.Routes), func(r hostnet.Route) bool { return r.Prefix.Addr().Is6() })
	return s
}
