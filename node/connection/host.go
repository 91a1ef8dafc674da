package connection

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/dns/hostdns"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/policy"
)

// dnsPort is where resolvers answer (RFC 1035).
const dnsPort = 53

// clusterSearch are the suffixes that make bare names work as they do inside a pod of namespace.
func clusterSearch(namespace, domain string) []string {
	return []string{namespace + ".svc." + domain, "svc." + domain, domain}
}

// gatewayResolvers returns where the gateway's resolver answers the workstation with these addresses.
func gatewayResolvers(addresses []netip.Addr) []netip.AddrPort {
	out := make([]netip.AddrPort, len(addresses))
	for i, a := range addresses {
		out[i] = netip.AddrPortFrom(policy.GatewayAddr(a), dnsPort)
	}
	return out
}

// upstreams returns the host's own resolvers as the local one asks them.
func upstreams(host hostdns.Config) []netip.AddrPort {
	out := make([]netip.AddrPort, len(host.Servers))
	for i, a := range host.Servers {
		out[i] = netip.AddrPortFrom(a, dnsPort)
	}
	return out
}

// dnsConfig returns the resolver's configuration for the state the session is in.
func (s *Session) dnsConfig() dns.Config {
	config := dns.Config{
		ClusterDomain:  s.cluster.Domain,
		Namespace:      s.kube.UserNamespace,
		Namespaces:     s.settings.DNS.Namespaces,
		Connection:     s.request.Name,
		Earlier:        earlierNames(s.earlier),
		Reverse:        s.clusterPrefixes(),
		Gateway:        gatewayResolvers(s.addresses),
		Upstreams:      upstreams(s.resolver),
		Search:         append(s.search(), s.resolver.Search...),
		Ndots:          s.resolver.Ndots(),
		Withheld:       s.withheld(),
		Twins:          s.dnsTwins(),
		Hidden:         s.hidden(),
		Pools:          s.plan.Pools,
		VirtualSubnets: s.virtualSubnets(),
		OthersVirtual:  s.othersVirtual(),
		LookupTimeout:  s.settings.DNS.LookupTimeout,
		Up:             s.up(),
		Generation:     s.generation,
	}
	for _, suffix := range s.settings.DNS.IncludeSuffixes {
		config.IncludeSuffixes = append(config.IncludeSuffixes, suffix.Name)
	}
	return config
}

// setDNS brings the resolver, once there is one, to the state the session is in.
func (s *Session) setDNS() {
	if s.dns != nil {
		s.dns.Set(s.dnsConfig())
	}
}

// hidden is what names are answered with virtual addresses for: under the plan, and under the one in force.
// Until the host's routes lead into the tunnel a real address leads a program to a stranger.
func (s *Session) hidden() []netip.Prefix {
	out := slices.Clone(s.plan.Virtualized)
	for _, p := range s.inForce.Virtualized {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// withheld returns the prefixes that others keep, with who does, so that no name of the cluster leads a
// program to a stranger.
func withheld(plan policy.Plan) []dns.Withheld {
	var out []dns.Withheld
	for _, c := range plan.Conflicts {
		for _, p := range slices.Concat(c.Open, c.Yielded) {
			out = append(out, dns.Withheld{Prefix: p, Owner: c.Claim.Who()})
		}
	}
	return out
}

// withheld is that of the plan, that of the one in force (see hidden), and what is to go by virtual addresses
// that the gateway does not know yet.
func (s *Session) withheld() []dns.Withheld {
	out, ready := withheld(s.plan), s.dnsTwins()
	for _, w := range withheld(s.inForce) {
		if !slices.ContainsFunc(out, func(o dns.Withheld) bool { return o.Prefix == w.Prefix }) {
			out = append(out, w)
		}
	}
	for _, t := range s.plan.Twins {
		if slices.ContainsFunc(ready, func(r dns.Twin) bool { return r.Real == t.Real }) {
			continue
		}
		for _, p := range s.plan.Virtualized {
			if p.Overlaps(t.Real) {
				out = append(out, dns.Withheld{Prefix: smaller(p, t.Real), Owner: "another network until the gateway knows its virtual addresses"})
			}
		}
	}
	return out
}

// smaller returns the smaller of two prefixes that overlap.
func smaller(a, b netip.Prefix) netip.Prefix {
	if a.Bits() > b.Bits() {
		return a
	}
	return b
}

// openHost has the helper create the interface, and runs WireGuard and the resolver on what it hands
// over.
func (s *Session) openHost(ctx context.Context) error {
	mtu := tunnelMTU(s.settings.MTU, s.knowledge.facts, s.kube.LocalAddr())
	request := helper.OpenRequest{MTU: mtu}
	for _, a := range s.addresses {
		request.Addresses = append(request.Addresses, netip.PrefixFrom(a, a.BitLen()))
	}
	opened, err := s.helper.Open(ctx, request)
	if err != nil {
		return hostFailure(err)
	}
	s.iface = opened.Interface
	s.resolver = opened.Host
	s.earlier = opened.Earlier
	s.addresses = nil
	for _, p := range opened.Addresses {
		s.addresses = append(s.addresses, p.Addr())
	}
	s.dns = dns.NewServer(dns.Options{
		UDP:  opened.DNSUDP,
		TCP:  opened.DNSTCP,
		Log:  s.log,
		Own:  s.hostAddrs.Contains,
		Pool: answers{&s.virtual.leases},
	})
	s.setDNS()
	s.uapi = opened.UAPI
	fd, err := opened.TakeTUN()
	if err != nil {
		return err
	}
	s.tunnel, err = newTunnel(fd, s.key, mtu, s.log)
	return err
}

// hostFailure says what to do about an error of the helper's, as far as that is known.
func hostFailure(err error) error {
	switch {
	case errors.Is(err, hostnet.ErrForeign):
		return failure.New(failure.General, err, "nothing of it was changed; remove it, or find out whose it is")
	case errors.Is(err, helper.ErrRefused): // by limits that root sets
		return failure.New(failure.Permission, err, "the host is as it was")
	}
	return err
}

// apply brings the host to the plan.
func (s *Session) apply(ctx context.Context) error {
	state := hostnet.State{
		Interface: s.iface,
		MTU:       s.tunnel.mtu,
		Table:     hostnet.Table(s.iface),
		Priority:  hostnet.Priority{V4: s.plan.Rules.V4.Priority, V6: s.plan.Rules.V6.Priority},
		SkipMarks: hostnet.SkipMarks{V4: skipMarks(s.plan.Rules.V4), V6: skipMarks(s.plan.Rules.V6)},
		DNS: hostdns.Config{
			Servers: s.addresses,
			Search:  s.search(),
			Domains: s.dnsConfig().Domains(),
		},
	}
	for _, a := range s.addresses {
		state.Addresses = append(state.Addresses, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, route := range s.plan.Routes {
		state.Routes = append(state.Routes, hostnet.Route{Prefix: route.Prefix, Throw: route.Kind == policy.RouteThrow})
	}
	if err := s.helper.Apply(ctx, state); err != nil {
		return hostFailure(fmt.Errorf("change the host's routes and resolver: %w", err))
	}
	s.applied = true
	return nil
}

// skipMarks converts a planned rule's.
func skipMarks(rule policy.PlannedRule) []hostnet.Mark {
	var out []hostnet.Mark
	for _, m := range rule.SkipMarks {
		out = append(out, hostnet.Mark{Value: m.Value, Mask: m.Mask})
	}
	return out
}

// hearHelper passes on what the helper notices, and its end.
func (s *Session) hearHelper(ctx context.Context) {
	for {
		select {
		case event, ok := <-s.helper.Events():
			if !ok {
				s.mail.send(ctx, func() { s.end(errHelperGone()) })
				return
			}
			s.mail.send(ctx, func() { s.helperNoticed(event) })
		case <-ctx.Done():
			return
		}
	}
}

// errHelperGone ends a connection whose root half has ended; its guard restores the host.
func errHelperGone() error {
	return failure.New(failure.General, helper.ErrHelperGone, "the host is as it was; `culvert logs` may say why")
}

// helperNoticed takes in what the helper tells.
func (s *Session) helperNoticed(event helper.Event) {
	if c := event.Contested; c != nil {
		s.notice(noticeContest+string(c.Kind), contest(c))
	}
	if event.IPsecChanged && s.applied {
		s.followHost(s.ctx)
	}
	if event.Earlier != nil {
		s.earlierChanged(*event.Earlier)
	}
	if event.Host != nil {
		s.resolversChanged(event)
	}
}

// contest says what another program does to the host's network; nil when it is over.
func contest(c *helper.Contested) error {
	if c.Over {
		return nil
	}
	return fmt.Errorf("degraded: another program %s since %s; culvert gives way to it and tries again every %v",
		c.What, c.Since.Format(time.TimeOnly), c.RetryEvery)
}

// resolversChanged adopts a change of the host's own resolvers. As a rule it comes with another network.
func (s *Session) resolversChanged(event helper.Event) {
	s.log.Info("the host's resolvers changed", "servers", event.Host.Servers, "search", event.Host.Search)
	s.resolver = *event.Host
	s.setDNS()
	if s.tunnel != nil && s.tunnel.keeper != nil {
		s.tunnel.keeper.Kick()
	}
	if s.applied {
		s.followHost(s.ctx)
	}
}

// serve runs the resolver and the socket of `wg show` until ctx ends.
func (s *Session) serve(ctx context.Context, background *sync.WaitGroup) {
	background.Go(func() {
		if err := s.dns.Run(ctx); err != nil && ctx.Err() == nil {
			s.mail.send(ctx, func() { s.end(fmt.Errorf("the resolver stopped: %w", err)) })
		}
	})
	background.Go(func() { s.proveAll(ctx) })
	background.Go(func() {
		if err := s.tunnel.device.ServeUAPI(ctx, s.uapi); err != nil && ctx.Err() == nil {
			s.log.Warn("`wg show` is not answered any more", "err", err)
		}
	})
}
