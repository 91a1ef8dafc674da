package connection

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// policyChanged takes in a new state of the team's Policy: what the gateway found in the cluster is
// followed in any case, what the team wishes where [Session.candidate] finds nothing against it. Else
// the wishes followed so far stay in force, and a warning in the status says why.
func (s *Session) policyChanged(p *v1alpha1.Policy) {
	if p == nil || p.ResourceVersion == s.knowledge.policy.ResourceVersion {
		return
	}
	s.knowledge.policy = p
	if err := s.readFacts(s.ctx); err != nil {
		s.notice(noticeHost, err) // tried again; until then the host is taken for what it was
	}
	s.takePolicy(s.ctx)
}

// takePolicy follows the team's Policy as far as it can be.
func (s *Session) takePolicy(ctx context.Context) {
	settings, cluster, plan, why := s.candidate(s.knowledge.policy)
	if why == nil {
		s.followed = s.knowledge.policy
		s.notice(noticeConsent, nil)
	} else {
		why = fmt.Errorf("the changed Policy is not followed: %w", why)
		var err error
		if settings, cluster, err = s.merge(s.followed); err != nil {
			s.notice(noticePolicy, errors.Join(why, err))
			return
		}
		plan = policy.NewPlan(s.planInput(s.agreedOnly(settings, cluster), cluster))
	}
	s.notice(noticePolicy, why)
	s.settings, s.cluster = settings, cluster
	s.noticeNarrowed()
	s.commit(ctx, plan)
}

// candidate returns what would follow from the team's changed wishes, or an error that says what
// forbids to follow them without a person's doing.
func (s *Session) candidate(p *v1alpha1.Policy) (settings policy.Settings, cluster policy.Cluster, plan policy.Plan, err error) {
	if len(p.Status.Problems) > 0 {
		return settings, cluster, plan, fmt.Errorf("the gateway finds it wrong: %s", p.Status.Problems)
	}
	if settings, cluster, err = s.merge(p); err != nil {
		return settings, cluster, plan, err
	}
	if wish := policy.ConsentNeeded(s.planInput(settings, cluster)); wish.Needed && !s.agreed(wish.Hash) && !s.agreeToLess(settings, cluster, wish.Hash) {
		return settings, cluster, plan, errors.New("you have not agreed to what it asks for now; `culvert quit` and connect again to be asked")
	}
	return settings, cluster, policy.NewPlan(s.planInput(settings, cluster)), nil
}

// followHost makes the plan anew for the host as it is now. What the host then routes elsewhere and
// nothing settles is left to it.
func (s *Session) followHost(ctx context.Context) {
	if err := s.readFacts(ctx); err != nil {
		s.notice(noticeHost, err)
		return
	}
	s.replan(ctx)
}

// replan makes the plan anew from what is known, and commits it. A Policy that was not followed may be
// now: the VPN that its wishes would have taken from may be gone.
func (s *Session) replan(ctx context.Context) {
	if s.followed != s.knowledge.policy {
		s.takePolicy(ctx)
		return
	}
	s.commit(ctx, s.planner.Plan(s.planInput(s.agreedOnly(s.settings, s.cluster), s.cluster)))
}

// helperPatience bounds waiting for the helper while connected: it may wait for the host, and the session
// has others to look after.
const helperPatience = 10 * time.Second

func (s *Session) readFacts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, helperPatience)
	defer cancel()
	facts, whole, err := readHost(ctx, s.helper)
	if err == nil {
		s.takeFacts(facts, whole)
	}
	return err
}

// takeFacts makes facts what is known of the host. Where they are not whole, IPsec policies stay those
// last known: none known is no reason to take what they protect.
func (s *Session) takeFacts(facts policy.Facts, whole bool) {
	if !whole {
		facts.IPsec = s.knowledge.facts.IPsec
	}
	s.knowledge.facts = facts
}

// commit makes plan the plan and applies it, if the one before was applied: else connect does. What
// fails is tried again by refresh.
func (s *Session) commit(ctx context.Context, plan policy.Plan) {
	if !plan.Equal(s.plan) {
		s.setPlan(plan)
	}
	s.protects = len(s.kube.Dialled())
	s.noticeConflicts()
	s.rememberTwins()
	s.askTwins()
	s.setDNS()
	if !s.applied {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, helperPatience)
	defer cancel()
	err := s.move(ctx)
	if before := s.inForce; err == nil && !before.Equal(s.plan) {
		s.inForce = s.plan
		s.setDNS() // what the routes lead to now may be named
		s.resetLost(ctx, before)
		s.prove()
	}
	s.notice(noticeHost, err)
}

// move brings WireGuard and the host to the plan: the tunnel takes up new prefixes before routes lead
// into them, and keeps old ones until no route does.
func (s *Session) move(ctx context.Context) error {
	s.translate()
	if err := s.tunnel.admit(s.plan.AllowedIPs); err != nil {
		return err
	}
	if err := s.apply(ctx); err != nil {
		return err
	}
	return s.setPeer()
}

// resetLost ends the host's connections into prefixes that the tunnel has carried and does not any more:
// they would go on by another network, which knows nothing of them.
func (s *Session) resetLost(ctx context.Context, before policy.Plan) {
	lost := policy.Lost(before, s.plan)
	if len(lost) == 0 {
		return
	}
	n, err := s.helper.Reset(ctx, lost)
	if err != nil {
		s.log.Warn("connections into prefixes that left the tunnel may hang", "prefixes", lost, "err", err)
		return
	}
	s.log.Info("prefixes left the tunnel", "prefixes", lost, "connections reset", n)
}

// resetEstablished ends the host's TCP connections through the tunnel, for a gateway that knows none of
// them.
func (s *Session) resetEstablished(ctx context.Context) {
	var through []netip.Prefix
	for _, route := range s.inForce.Routes {
		if route.Kind == policy.RouteTunnel {
			through = append(through, route.Prefix)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, helperPatience)
	defer cancel()
	n, err := s.helper.ResetEstablished(ctx, through)
	if err != nil {
		s.log.Warn("connections through the gateway that is gone may hang", "err", err)
		return
	}
	s.log.Info("another gateway", "connections reset", n)
}

// noticeConflicts warns of what was connected and is left to the host now.
func (s *Session) noticeConflicts() {
	var left []string
	for _, c := range s.plan.Unsettled() {
		left = append(left, fmt.Sprintf("%s (%s)", c.Overlap, c.Kind))
	}
	if len(left) == 0 {
		s.notice(noticeConflicts, nil)
		return
	}
	s.notice(noticeConflicts, fmt.Errorf("degraded: another network of this host routes %s, and it is left to that", slices.Compact(left)))
}
