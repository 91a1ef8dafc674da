package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	wire "github.com/miekg/dns"
)

// Agent resolves names as a pod of a workload does, and is the way to some of the cluster's addresses.
//
// What the gateway answers, an agent is asked too if an address of the answer lies in its Subnets; its addresses there
// take the place of the gateway's. One that knows none there leaves those of the gateway. If it does not answer, the
// gateway's addresses outside its Subnets are all there is, and an answer that has no other is SERVFAIL with an extended
// error (RFC 8914) that names the workload. What the gateway denies, no agent is asked for.
type Agent struct {
	// Workload is whose pod it is in, for people.
	Workload string
	// Subnets are the real prefixes of the cluster that it is the way to. An address of them is the agent's with the
	// narrowest one around it. They count as [Config.Hidden], and the cluster may name addresses in them as in
	// [Twin].Real.
	Subnets []netip.Prefix
	// Servers are the addresses of its forwarder in the tunnel. Empty says that it does not answer.
	Servers []netip.AddrPort
	// Suffixes are domains that it is asked for alone, in the cluster's domain or outside. Clients get those of its
	// addresses that lie in Subnets. Of the cluster's domain, IncludeSuffixes and those of all agents the longest that
	// fits a name counts, and of equal ones an agent's.
	Suffixes []string
}

// normalAgents returns a copy in normal form.
func normalAgents(agents []Agent) []Agent {
	var out []Agent
	for _, a := range agents {
		a.Subnets = normalPrefixes(a.Subnets)
		a.Servers = normalServers(a.Servers)
		a.Suffixes = canonicalAll(a.Suffixes)
		out = append(out, a)
	}
	return out
}

// sameAgents reports whether same holds of every agent of both configurations, in order.
func sameAgents(c, o *Config, same func(a, b *Agent) bool) bool {
	return slices.EqualFunc(c.Agents, o.Agents, func(a, b Agent) bool { return a.Workload == b.Workload && same(&a, &b) })
}

func (a *Agent) sameSubnets(b *Agent) bool  { return slices.Equal(a.Subnets, b.Subnets) }
func (a *Agent) sameServers(b *Agent) bool  { return slices.Equal(a.Servers, b.Servers) }
func (a *Agent) sameSuffixes(b *Agent) bool { return slices.Equal(a.Suffixes, b.Suffixes) }

// suffix returns the index of the agent that alone is asked for name, and by which of its suffixes; "" for none.
func (c *Config) suffix(name string) (agent int, suffix string) {
	for i := range c.Agents {
		for _, s := range c.Agents[i].Suffixes {
			if under(name, s) && len(s) > len(suffix) {
				agent, suffix = i, s
			}
		}
	}
	longer := func(domain string) bool { return len(domain) > len(suffix) && under(name, domain) }
	if suffix == "" || longer(c.ClusterDomain) || slices.ContainsFunc(c.IncludeSuffixes, longer) {
		return 0, ""
	}
	return agent, suffix
}

// via is d, or the decision to ask an agent instead of the gateway for the same name.
func (c *Config) via(d Decision) Decision {
	if d.Source != SourceCluster || len(c.Agents) == 0 {
		return d
	}
	agent, suffix := c.suffix(d.Name)
	if suffix == "" {
		return d
	}
	d.Source, d.agent, d.Workload = SourceAgent, agent, c.Agents[agent].Workload
	d.Reason = fmt.Sprintf("in the suffix %s of workload %s", strings.TrimSuffix(suffix, "."), d.Workload)
	return d
}

// agentSubnet is one of an agent's subnets.
type agentSubnet struct {
	prefix   netip.Prefix
	agent    int // its index
	workload string
}

// newAgentMap returns the map from an address to the agent that is the way to it.
func newAgentMap(agents []Agent) prefixMap[agentSubnet] {
	var subnets []agentSubnet
	for i, a := range agents {
		for _, p := range a.Subnets {
			subnets = append(subnets, agentSubnet{p, i, a.Workload})
		}
	}
	return newPrefixMap(subnets, func(s agentSubnet) netip.Prefix { return s.prefix })
}

// reply is what the cluster says to a question: the gateway, agents or both.
type reply struct {
	msg    *wire.Msg
	source Source   // who was asked first
	agents []string // the workloads whose agents were asked
	losses []loss   // of addresses of agents that do not answer
}

var errNoAgent = errors.New("there is none at present")

// askAgent asks the i-th agent msg.
func (s *Server) askAgent(ctx context.Context, st *state, i int, msg []byte) (*wire.Msg, error) {
	s.counters.agents.Add(1)
	m, err := exchangeWhole(ctx, st.agents[i], msg)
	switch {
	case errors.Is(err, errNoServer):
		err = errNoAgent
	case err == nil && m.Rcode != wire.RcodeSuccess && m.Rcode != wire.RcodeNameError:
		err = errors.New(wire.RcodeToString[m.Rcode])
	}
	if err != nil {
		return nil, fmt.Errorf("no answer from the agent in %s: %w", st.cfg.Agents[i].Workload, err)
	}
	return m, nil
}

// askAgentAlone asks msg of the agent that d says.
func (s *Server) askAgentAlone(ctx context.Context, st *state, d Decision, msg []byte, _ uint16) (reply, error) {
	m, err := s.askAgent(ctx, st, d.agent, msg)
	return reply{msg: m, source: SourceAgent, agents: []string{d.Workload}}, err
}

// consult asks the agents that are the way to addresses of r, the gateway's reply to msg, each once and all at the same
// time, and puts what they say into r. The error is that of one that does not answer, if nothing is left of r without it.
func (s *Server) consult(ctx context.Context, st *state, r *reply, msg []byte, qtype uint16) error {
	concerned := st.outward.concerned(r.msg)
	if len(concerned) == 0 {
		return nil
	}
	said, errs := make([]*wire.Msg, len(concerned)), make([]error, len(concerned))
	var asking sync.WaitGroup
	for i, agent := range concerned {
		asking.Go(func() { said[i], errs[i] = s.askAgent(ctx, st, agent, msg) })
	}
	asking.Wait()
	complete := answers(r.msg, qtype)
	for i, agent := range concerned {
		r.agents = append(r.agents, st.cfg.Agents[agent].Workload)
		mine := func(addr netip.Addr) bool { return st.outward.way(addr) == agent }
		if errs[i] == nil {
			mergeAgent(r.msg, said[i], mine)
			continue
		}
		changeAddresses(r.msg, func(addr netip.Addr) netip.Addr {
			if mine(addr) {
				return netip.Addr{}
			}
			return addr
		})
		r.losses = addLoss(r.losses, loss{wire.ExtendedErrorCodeNoReachableAuthority, clip(errs[i].Error())})
	}
	if complete && !answers(r.msg, qtype) {
		return cmp.Or(errs...)
	}
	return nil
}

// way returns the index of the agent that is the way to addr; -1 for none.
func (o *outward) way(addr netip.Addr) int {
	if subnet, ok := o.agents.find(addr); ok {
		return subnet.agent
	}
	return -1
}

// concerned returns the agents that are the way to addresses of m, in order.
func (o *outward) concerned(m *wire.Msg) []int {
	if o.agents.empty() {
		return nil
	}
	var out []int
	for _, rrs := range [][]wire.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range rrs {
			eachPlace(rr, func(_ place, ips *[]net.IP) {
				for _, ip := range *ips {
					if agent := o.way(addrOf(ip)); agent >= 0 && !slices.Contains(out, agent) {
						out = append(out, agent)
					}
				}
			})
		}
	}
	slices.Sort(out)
	return out
}
