package connection

import (
	"errors"
	"net/netip"

	"github.com/culvert-dev/culvert/node/config"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// sources are all inputs of the settings; team is nil for none.
func (s *Session) sources(team *v1alpha1.Policy) config.Sources {
	return config.Sources{
		Flags:       s.request.Flags,
		Environment: s.request.Environment,
		File:        s.request.ConfigFile,
		Kubeconfig:  s.kube.Extension,
		Policy:      team,
	}
}

// checkOwn refuses bad flags, variables and files before anything else is looked at.
func (s *Session) checkOwn() error {
	layers, err := config.Layers(config.Sources{Flags: s.request.Flags, Environment: s.request.Environment, File: s.request.ConfigFile})
	if err != nil {
		return err
	}
	if _, _, err := policy.Merge(layers...); err != nil {
		return failure.New(failure.Usage, err, "nothing was changed")
	}
	return nil
}

// usablePolicy returns p, or nil when the gateway found it wrong: a bad Policy is ignored as a whole.
func (s *Session) usablePolicy(p *v1alpha1.Policy) *v1alpha1.Policy {
	if len(p.Status.Problems) > 0 {
		s.log.Warn("the team's Policy is ignored", "problems", p.Status.Problems)
		return nil
	}
	return p
}

// merge makes the settings out of all layers, of which team is one, and the cluster's subnets as
// last seen.
func (s *Session) merge(team *v1alpha1.Policy) (policy.Settings, policy.Cluster, error) {
	layers, err := config.Layers(s.sources(team))
	if err != nil {
		return policy.Settings{}, policy.Cluster{}, err
	}
	settings, _, err := policy.Merge(layers...)
	if err != nil {
		return policy.Settings{}, policy.Cluster{}, failure.New(failure.Usage, err, "nothing was changed")
	}
	cluster, err := policy.ClusterFrom(s.knowledge.policy.Status, settings)
	if err != nil {
		return policy.Settings{}, policy.Cluster{}, failure.New(failure.GatewayState, err, "")
	}
	if len(cluster.Services)+len(cluster.Pods) == 0 {
		return policy.Settings{}, policy.Cluster{}, failure.Newf(failure.GatewayState, "the gateway has not found the cluster's subnets yet").
			WithHint("see `culvert gateway status`; or name them with --service-subnets and --pod-subnets")
	}
	if err := policy.CheckProxyVia(settings, cluster); err != nil {
		return policy.Settings{}, policy.Cluster{}, failure.New(failure.Usage, err, "nothing was changed")
	}
	return settings, cluster, nil
}

func (s *Session) clusterPrefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, subnets := range [][]policy.Subnet{s.cluster.Services, s.cluster.Pods} {
		for _, subnet := range subnets {
			out = append(out, subnet.Prefix)
		}
	}
	return out
}

func (s *Session) planInput(settings policy.Settings, cluster policy.Cluster) policy.Input {
	return policy.Input{
		Settings:  s.leaveToLater(settings, cluster),
		Cluster:   cluster,
		Facts:     s.knowledge.facts,
		Own:       s.own(),
		Virtual:   s.virtual.chosen,
		Overlay:   s.overlay,
		Protected: protected(s.kube, s.resolver),
	}
}

// own says what on the host is this connection's.
func (s *Session) own() policy.Own {
	return policy.Own{Interface: s.iface, Table: uint32(hostnet.Table(s.iface))}
}

// setPlan makes p the plan, and logs how it came about.
func (s *Session) setPlan(p policy.Plan) {
	s.assign(p)
	s.plan, s.protects = p, len(s.kube.Dialled())
	for _, line := range p.Trace {
		s.log.Info("plan", "trace", line)
	}
}

// refusedByPolicy is the error of flags that ask for more than the team's Policy enforces.
func refusedByPolicy(settings policy.Settings) error {
	for _, n := range settings.Narrowed {
		if n.Origin.Source == policy.SourceFlag {
			return failure.Newf(failure.Refused, "%s %s goes beyond what %s enforces for %s", n.Origin.Position, n.Value, n.By.Position, n.Key).
				WithHint("nothing was changed; `culvert config explain %s` shows what is in force", n.Key)
		}
	}
	return nil
}

// noticeNarrowed says what other sources than flags asked for in vain.
func (s *Session) noticeNarrowed() {
	var all []error
	for _, n := range s.settings.Narrowed {
		all = append(all, errors.New(n.String()))
	}
	s.notice(noticeNarrowed, errors.Join(all...))
}
