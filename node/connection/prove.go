package connection

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/reach"
	"github.com/culvert-dev/culvert/policy"
)

// proofs are the probes of what the plan says can be reached. The session's goroutine owns results; the
// wish for a run goes to the goroutine of proveAll, where a newer one takes the place of an older.
type proofs struct {
	wishes  chan []reach.Target
	results []reach.Result
	at      time.Time // when results came
}

func newProofs() proofs { return proofs{wishes: make(chan []reach.Target, 1)} }

// wish asks for a run over targets.
func (p *proofs) wish(targets []reach.Target) {
	select {
	case <-p.wishes:
	default:
	}
	p.wishes <- targets // of one sender: there is room
}

// status is what status shows of the latest run.
func (p *proofs) status() []api.Reach {
	var out []api.Reach
	for _, r := range p.results {
		out = append(out, api.Reach{Prefix: r.Prefix, Verdict: string(r.Verdict), Detail: r.Detail, RTTMillis: float64(r.RTT.Microseconds()) / 1000, At: p.at})
	}
	return out
}

// prove has each subnet probed through the tunnel. While there is no tunnel nothing could be learnt.
func (s *Session) prove() {
	if !s.up() || !s.applied {
		return
	}
	subnets := s.clusterPrefixes()
	for _, r := range s.settings.Routing {
		if r.Resolve == policy.ResolveAlso {
			subnets = append(subnets, r.Prefix)
		}
	}
	for _, t := range s.plan.Twins { // of a pool only what is leased could be asked for
		if t.Virtual.IsValid() && !t.Pooled && slices.ContainsFunc(s.plan.Virtualized, t.Real.Overlaps) {
			subnets = append(subnets, t.Virtual)
		}
	}
	var gateways []netip.Addr
	for _, a := range s.addresses {
		gateways = append(gateways, policy.GatewayAddr(a))
	}
	targets := reach.Targets(subnets, s.plan.AllowedIPs, gateways)
	s.proofs.wish(targets[:min(len(targets), maxProofs)])
}

// maxProofs bounds a run: what one of so many subnets shows, the others mostly show as well.
const maxProofs = 256

// proveAll makes the runs that are wished for, until ctx ends.
func (s *Session) proveAll(ctx context.Context) {
	prober := reach.New(reach.Config{Interface: s.iface, Tap: s.tunnel.tap, Log: s.log})
	for {
		select {
		case targets := <-s.proofs.wishes:
			results := prober.Probe(ctx, targets)
			s.mail.send(ctx, func() { s.proven(results) })
		case <-ctx.Done():
			return
		}
	}
}

// proven takes in the results of a run.
func (s *Session) proven(results []reach.Result) {
	if !s.up() {
		return // what was silent was so for a known reason
	}
	s.proofs.results, s.proofs.at = results, time.Now()
	var bad []error
	for _, r := range results {
		if r.Verdict != reach.Working && r.Verdict != reach.Unproven && !s.leftToOthers(r.Prefix) {
			bad = append(bad, errors.New("degraded: "+r.Detail))
		}
	}
	s.notice(noticeReach, errors.Join(bad...))
}

// leftToOthers reports whether the plan, which may be newer than a result, leaves all of p to others.
func (s *Session) leftToOthers(p netip.Prefix) bool {
	return !slices.ContainsFunc(s.plan.AllowedIPs, p.Overlaps)
}
