package connection

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/reach"
	"github.com/culvert-dev/culvert/policy"
)

// view is what others may look into while the session goes on: nothing in it is changed once it is
// published. The resolver and the pool are safe for concurrent use.
type view struct {
	name    string
	inForce bool // else it is a preview
	input   policy.Input
	plan    policy.Plan
	dns     *dns.Server // nil while there is none
	leases  *leases     // nil in a preview
}

// publishView shows the plan in force, once there is one.
func (s *Session) publishView() {
	if s.plan.Trace == nil {
		return
	}
	s.view.Store(&view{
		name:    s.request.Name,
		inForce: true,
		input:   s.planInput(s.agreedSettings(), s.cluster),
		plan:    s.plan,
		dns:     s.dns,
		leases:  &s.virtual.leases,
	})
}

// agreedSettings are those in force: without what the team's Policy asks for while agreedOnly waits for
// the user's word.
func (s *Session) agreedSettings() policy.Settings {
	if s.notices[noticeConsent] == "" {
		return s.settings
	}
	return s.settings.Without(policy.SourcePolicy)
}

// errUndecided is what a connection says of its plan before it has one.
var errUndecided = errors.New("nothing is decided yet: the connection is still being made")

// Plan implements api.Handler.
func (s *Session) Plan() (api.Plan, error) {
	v := s.view.Load()
	if v == nil {
		return api.Plan{}, errUndecided
	}
	p := v.api()
	p.Basis = &api.Basis{Interface: v.input.Own.Interface, Overlay: v.input.Overlay, Protected: v.input.Protected}
	return p, nil
}

// Why implements api.Handler. A name is asked for beside the session's goroutine.
func (s *Session) Why(ctx context.Context, target string) (api.Why, error) {
	v := s.view.Load()
	if v == nil {
		return api.Why{}, errUndecided
	}
	return v.why(ctx, target)
}

func (v *view) api() api.Plan {
	return api.Plan{
		Version:  api.PlanVersion,
		Name:     v.name,
		InForce:  v.inForce,
		Refused:  !v.inForce && len(v.plan.Unsettled()) > 0,
		Plan:     v.plan,
		Narrowed: v.input.Settings.Narrowed,
	}
}

// why explains an address, or a name and the addresses that it leads to.
func (v *view) why(ctx context.Context, target string) (api.Why, error) {
	w := api.Why{Version: api.WhyVersion, Target: target, Name: v.name, InForce: v.inForce, Addresses: []api.Explained{}}
	if a, err := netip.ParseAddr(target); err == nil {
		w.Addresses = append(w.Addresses, v.explain(a))
		return w, nil
	}
	if v.dns == nil {
		return w, fmt.Errorf("%s is a name, and the connection's resolver does not run yet", target)
	}
	trace, err := v.dns.Trace(ctx, target)
	if err != nil {
		return w, err
	}
	w.Trace = &trace
	for _, a := range trace.Addresses {
		w.Addresses = append(w.Addresses, v.explain(a))
	}
	for _, withheld := range trace.Withheld() {
		w.Addresses = append(w.Addresses, v.explain(withheld.Addr))
	}
	return w, nil
}

func (v *view) explain(a netip.Addr) api.Explained {
	e := api.Explained{
		Explanation: policy.Explain(v.input, a),
		Interface:   v.input.Own.Interface,
		Kernel:      askKernel(a),
	}
	if v.leases != nil {
		e.Lease = v.leases.lease(e.Explanation)
	}
	return e
}

// askKernel asks where packets to a go at this moment.
func askKernel(a netip.Addr) api.Kernel {
	route, err := reach.RouteTo(a.Unmap().WithZone(""))
	if err != nil {
		return api.Kernel{Error: err.Error()}
	}
	return api.Kernel{Interface: route.Interface, Table: route.Table, NextHop: route.NextHop, Local: route.Local, Refusal: route.Refusal}
}
