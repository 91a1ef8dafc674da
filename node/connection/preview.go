package connection

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/config"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/node/report"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// Preview is what connecting would come to, found out without root and without changing anything.
type Preview struct {
	view    view
	consent policy.Consent // that is still to be given
}

// NewPreview learns and decides as a connection for request would, except that nobody is asked for
// consent: what would be asked is part of the preview. running is what a connection of that name has on
// the host, which the new one would take over; nil for none.
func NewPreview(ctx context.Context, request report.Request, running *api.Basis) (*Preview, error) {
	s := reader(request)
	if err := s.learn(ctx); err != nil {
		return nil, err
	}
	if running != nil {
		s.iface, s.overlay = running.Interface, running.Overlay
		s.resolver.Servers = nil // they are the connection's own; it protects those it found
	}
	if err := s.settle([16]byte{}); err != nil { // the same again says the same; connect draws other addresses
		return nil, err
	}
	in := s.planInput(s.settings, s.cluster)
	if running != nil {
		in.Protected = withProtected(in.Protected, running.Protected)
	}
	p := &Preview{view: view{name: request.Name, input: in, plan: policy.NewPlan(in)}}
	if wish := policy.ConsentNeeded(in); wish.Needed && !request.TrustPolicy && !s.agreed(wish.Hash) {
		p.consent = wish
	}
	return p, nil
}

// reader returns a session that can learn and decide, and does nothing else.
func reader(request report.Request) *Session {
	return &Session{
		request: request,
		channel: report.NewChannel(nobody{}),
		log:     slog.New(slog.DiscardHandler),
		notices: notices{},
	}
}

// nobody is a command that does not listen.
type nobody struct{}

func (nobody) Read([]byte) (int, error)    { return 0, fmt.Errorf("nobody answers") }
func (nobody) Write(p []byte) (int, error) { return len(p), nil }
func (nobody) Close() error                { return nil }

func withProtected(list, more []policy.Protected) []policy.Protected {
	known := map[netip.Prefix]bool{}
	for _, p := range list {
		known[p.Prefix] = true
	}
	return append(slices.Clone(list), slices.DeleteFunc(slices.Clone(more), func(p policy.Protected) bool { return known[p.Prefix] })...)
}

// Plan returns the plan for people and programs.
func (p *Preview) Plan() api.Plan {
	out := p.view.api()
	out.Consent = p.consent.Takes
	return out
}

// Why explains what would become of packets to an address.
func (p *Preview) Why(ctx context.Context, a netip.Addr) (api.Why, error) {
	return p.view.why(ctx, a.String())
}

// EffectiveSettings says where each setting that a connection for request would have comes from. It
// needs neither root nor the cluster: missing has a sentence for each source that could not be read.
func EffectiveSettings(ctx context.Context, request report.Request) (settings []policy.Effective, missing []string, err error) {
	s := reader(request)
	team, missing := s.team(ctx)
	layers, err := config.Layers(s.sources(team))
	if err != nil {
		return nil, nil, err
	}
	settings, err = policy.EffectiveSettings(layers...)
	if err != nil {
		return nil, nil, failure.New(failure.Usage, err, "nothing was changed")
	}
	return settings, missing, nil
}

// team reads the kubeconfig and, from the cluster, the team's Policy, as far as they can be read.
func (s *Session) team(ctx context.Context) (team *v1alpha1.Policy, missing []string) {
	client, err := kube.Load(s.request.Kube)
	if err != nil {
		s.kube = &kube.Client{} // without an extension
		return nil, []string{fmt.Sprintf("the kubeconfig's layer and the Policy's are missing: %v", err)}
	}
	s.kube = client
	team, err = client.Policy(ctx)
	if err != nil {
		return nil, []string{fmt.Sprintf("the Policy's layer is missing: %v", err)}
	}
	if s.usablePolicy(team) == nil {
		return nil, []string{fmt.Sprintf("the Policy is ignored as a whole, because the gateway finds it wrong: %s", team.Status.Problems)}
	}
	return team, nil
}

// Agreement says whether the user has agreed to what a team's Policy may take.
type Agreement string

// Agreements.
const (
	NothingTaken Agreement = "it takes nothing"
	Agreed       Agreement = "agreed"
	NotAgreed    Agreement = "not agreed yet"
)

// AgreementTo tells how the user of this process stands to a Policy, given the other settings of request.
func AgreementTo(request report.Request, client *kube.Client, team *v1alpha1.Policy) (Agreement, error) {
	s := reader(request)
	s.kube, s.knowledge.policy = client, team
	settings, cluster, err := s.merge(team)
	if err != nil {
		return "", err
	}
	switch hash := policy.ConsentNeeded(policy.Input{Settings: settings, Cluster: cluster}).Hash; {
	case hash == "":
		return NothingTaken, nil
	case consented(hash):
		return Agreed, nil
	}
	return NotAgreed, nil
}
