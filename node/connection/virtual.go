package connection

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/dns/vip"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/twins"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// virtual is what a session knows of virtual addresses. Its owner is the session's goroutine.
//
//	plan.Twins ──► Peer.spec.twins ──► the gateway takes them up ──► names are answered with them
//	     └───────► routes, AllowedIPs, and for pooled ones the rewriting at the TUN
type virtual struct {
	store  *twins.Store // nil where nothing can be remembered
	key    twins.Key
	chosen policy.Virtual // with every twin that the cluster was ever given
	kept   policy.Virtual // what the store has of that

	pool *vip.Stats // a few seconds ago; nil for no pool

	asked  []v1alpha1.Twin // of the Peer, done or under way
	known  []v1alpha1.Twin // that the gateway has taken up
	asking bool
	leases leases
}

// chooseVirtual finds out of which subnets virtual addresses are taken: those of the last time, if they
// are free. It writes nothing.
func (s *Session) chooseVirtual() error {
	v := &s.virtual
	v.key = twins.Key{Cluster: s.knowledge.policy.Status.ClusterUID, Connection: s.request.Name}
	in := policy.VirtualInput{
		Settings: s.settings,
		Cluster:  s.cluster,
		Facts:    s.knowledge.facts,
		Own:      s.own(),
		Overlay:  s.overlay,
		ULA:      twins.ULA(machineID()),

		Protected: protected(s.kube, s.resolver),
	}
	var err error
	if v.store, err = twins.Open(); err == nil {
		in.Remembered, in.Others, err = v.store.Recall(v.key)
	}
	s.notice(noticeTwins, err)
	v.chosen, err = policy.ChooseVirtual(in)
	if err != nil && needsVirtual(s.settings) {
		return failure.New(failure.Conflict, err, "nothing was changed")
	}
	s.notice(noticeNoVirtual, err)
	v.kept = in.Remembered
	return nil
}

// needsVirtual reports whether the settings ask for virtual addresses. Else there need not be any.
func needsVirtual(settings policy.Settings) bool {
	return settings.OnConflict == policy.ResolveVirtualize || settings.VirtualSubnet.IsValid() || settings.VirtualIPv6Subnet.IsValid() ||
		slices.ContainsFunc(settings.Routing, func(r policy.RoutingRule) bool {
			return r.Resolve == policy.ResolveVirtualize || r.Resolve == policy.ResolveVia
		})
}

// assign makes the twins of p those that the cluster was given.
func (s *Session) assign(p policy.Plan) {
	if len(p.Twins) > 0 {
		s.virtual.chosen = s.virtual.chosen.Keep(p.Undivided)
	}
}

// rememberTwins keeps for the next connection what was assigned since the last time.
func (s *Session) rememberTwins() {
	v := &s.virtual
	if v.kept.V4 != v.chosen.V4 || v.kept.V6 != v.chosen.V6 || !slices.Equal(v.kept.Assigned, v.chosen.Assigned) {
		s.keepTwins()
	}
}

// keepTwins keeps what was assigned, and that it is in use.
func (s *Session) keepTwins() {
	v := &s.virtual
	if v.store == nil {
		return
	}
	err := v.store.Keep(v.key, v.chosen)
	s.notice(noticeTwins, err)
	if err == nil {
		v.kept = v.chosen
	}
}

// peerTwins are the twins as a Peer has them.
func peerTwins(plan policy.Plan) []v1alpha1.Twin {
	var out []v1alpha1.Twin
	for _, t := range plan.Twins {
		if t.Virtual.IsValid() {
			out = append(out, v1alpha1.Twin{Real: t.Real.String(), Virtual: t.Virtual.String()})
		}
	}
	return out
}

// askTwins has the Peer say what twins the plan has, beside the session's goroutine. refresh tries again
// what failed.
func (s *Session) askTwins() {
	v := &s.virtual
	wanted := peerTwins(s.plan)
	if s.peer == nil || v.asking || slices.Equal(wanted, v.asked) {
		return
	}
	v.asking = true
	name, uid := s.peer.Name, string(s.peer.UID)
	s.background.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, helperPatience)
		defer cancel()
		peer, err := s.kube.SetTwins(ctx, name, uid, wanted)
		s.mail.send(s.ctx, func() { s.twinsAsked(wanted, peer, err) })
	})
}

// twinsAsked takes in the API server's answer to askTwins.
func (s *Session) twinsAsked(wanted []v1alpha1.Twin, peer *v1alpha1.Peer, err error) {
	s.virtual.asking = false
	if err != nil {
		s.notice(noticeAskTwins, fmt.Errorf("new subnets of the cluster have no virtual addresses yet: %w", err))
		return
	}
	s.notice(noticeAskTwins, nil)
	s.virtual.asked = wanted
	s.peerChanged(peer)
	s.askTwins() // for what came about meanwhile
}

// twinsKnown takes in what the gateway has taken up. Names are answered with nothing else.
func (s *Session) twinsKnown(known []v1alpha1.Twin) {
	if slices.Equal(known, s.virtual.known) {
		return
	}
	s.virtual.known = known
	s.setDNS()
}

// dnsTwins returns the twins that names can be answered with now.
func (s *Session) dnsTwins() []dns.Twin {
	var out []dns.Twin
	for _, t := range s.plan.Twins {
		known := func(k v1alpha1.Twin) bool { return k.Real == t.Real.String() && k.Virtual == t.Virtual.String() }
		if t.Virtual.IsValid() && slices.ContainsFunc(s.virtual.known, known) {
			out = append(out, dns.Twin{Real: t.Real, Virtual: t.Virtual, Pooled: t.Pooled})
		}
	}
	return out
}

// virtualSubnets are where virtual addresses lie, and nothing else.
func (s *Session) virtualSubnets() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{s.virtual.chosen.V4, s.virtual.chosen.V6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// virtualStatus is what status shows.
func (s *Session) virtualStatus() *api.Virtual {
	if s.plan.Trace == nil {
		return nil
	}
	v := &api.Virtual{Subnets: s.virtualSubnets(), Hidden: s.plan.Virtualized, Pool: s.virtual.pool}
	for _, t := range s.plan.Twins {
		v.Twins = append(v.Twins, api.Twin{
			Real: t.Real, Kind: string(t.Kind), Virtual: t.Virtual, Pooled: t.Pooled, Reason: t.Reason,
			Hidden: slices.ContainsFunc(s.plan.Virtualized, t.Real.Overlaps),
		})
	}
	return v
}
