package connection

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/policy"
)

// Status implements api.Handler: the snapshot of the latest event or tick, whichever was later.
func (s *Session) Status() api.Status { return *s.snapshot.Load() }

// publish makes a new snapshot.
func (s *Session) publish() {
	status := &api.Status{
		Version:   api.StatusVersion,
		Name:      s.request.Name,
		State:     s.state,
		Reason:    s.reason,
		Since:     s.since,
		Program:   version.Version,
		Processes: api.Processes{Node: os.Getpid(), Helper: s.hello.HelperPID, Guard: s.hello.GuardPID},
		Peer:      api.Peer{Addresses: s.addresses},
		Carrier:   s.carrierStatus(),
		Warnings:  slices.Concat(s.plan.Warnings, s.notices.list()),
		Yielded:   s.plan.Yielded,
		Virtual:   s.virtualStatus(),
		Reach:     s.proofs.status(),
	}
	if s.kube != nil {
		status.Cluster = api.Cluster{Context: s.kube.Context, Server: s.kube.Host(), Namespace: s.kube.UserNamespace, User: s.knowledge.user}
	}
	if s.knowledge.policy != nil {
		status.Cluster.UID = s.knowledge.policy.Status.ClusterUID
	}
	if s.peer != nil {
		status.Peer.Name, status.Peer.Namespace = s.peer.Name, s.peer.Namespace
	}
	if s.gateway != nil {
		status.Gateway = api.Gateway{Pod: s.gateway.Pod, Version: s.gateway.Version, PublicKey: s.gateway.PublicKey}
	}
	if s.tunnel != nil {
		status.WireGuard = s.wireguardStatus()
	}
	for _, route := range s.plan.Routes {
		status.Routes = append(status.Routes, api.Route{Prefix: route.Prefix, Kind: string(route.Kind), Reason: route.Reason})
	}
	for _, conflict := range s.plan.Conflicts {
		status.Conflicts = append(status.Conflicts, conflictLine(conflict))
	}
	if s.dns != nil {
		status.DNS = s.dnsStatus()
	}
	s.snapshot.Store(status)
	s.publishView()
}

func (s *Session) carrierStatus() api.Carrier {
	state := s.carrier
	if s.tunnel != nil && s.tunnel.keeper != nil {
		state = s.tunnel.keeper.State() // with the counters of now
	}
	c := api.Carrier{
		Name:      "apiserver",
		Connected: state.Connected,
		Since:     state.Since,
		RTTMillis: float64(state.RTT.Microseconds()) / 1000,
		Redials:   state.Redials,
	}
	if state.Err != nil {
		c.Error = state.Err.Error()
	}
	return c
}

func (s *Session) wireguardStatus() api.WireGuard {
	at, received, sent := s.tunnel.handshake()
	return api.WireGuard{
		Interface:     s.iface,
		MTU:           s.tunnel.mtu,
		PublicKey:     s.key.PublicKey().String(),
		LastHandshake: at,
		ReceivedBytes: received,
		SentBytes:     sent,
	}
}

func (s *Session) dnsStatus() api.DNS {
	stats, config := s.dns.Stats(), s.dnsConfig()
	return api.DNS{
		Server:    s.addresses,
		Domains:   config.Domains(),
		Upstreams: upstreams(s.resolver),
		Ceded:     cededStatus(config),
		Queries:   stats.Queries,
		Failures:  stats.ServFail,
	}
}

// conflictLine says in one line what overlaps, and what became of it.
func conflictLine(c policy.Conflict) string {
	place := "(" + string(c.Claim.Type) + ")" // a blackhole or an IPsec policy has no interface
	if len(c.Claim.Interfaces) > 0 {
		place = "on " + strings.Join(c.Claim.Interfaces, ", ")
	}
	return fmt.Sprintf("%s %s overlaps %s %s: %s", c.Subnet, c.Kind, c.Claim.Prefix, place, c.Resolution)
}
