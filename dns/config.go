package dns

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Config says who is asked for which names. The zero value knows neither cluster nor resolvers and answers SERVFAIL.
// Names are taken with or without a trailing dot, in any case.
type Config struct {
	// ClusterDomain is the domain of the cluster's own names; "" means cluster.local.
	ClusterDomain string
	// Namespace is the connected one: NAME and NAME.NAMESPACE are completed with it. "" completes neither.
	Namespace string
	// Namespaces are further routing domains: NAME.NAMESPACE is completed with them, unless the namespace has a
	// [Reserved] name: with a namespace called prod, echo.prod is a name of the public domain prod.
	Namespaces []string
	// Connection is this connection's name; ANYTHING.CONNECTION.culvert.internal is ANYTHING in its cluster.
	// "" means there is no such alias.
	Connection string
	// Earlier are other connections on this host that began before this one. What they answer is theirs, and so are
	// all short names; this connection keeps CONNECTION.culvert.internal and the domains that none of them has.
	Earlier []Earlier
	// IncludeSuffixes are domains outside the cluster that the cluster's resolver is asked for.
	IncludeSuffixes []string
	// Reverse are the prefixes whose reverse names (PTR) the cluster is asked for.
	Reverse []netip.Prefix
	// Withheld are the prefixes that are left to other networks. The cluster's answers lose the addresses in them; one
	// that loses all it says is replaced by SERVFAIL with an extended error (RFC 8914) that says who has the address.
	// Answers of the host's own resolvers, and PTR records, stay as they are. A change takes effect with the next
	// reply and costs nothing of what is remembered.
	Withheld []Withheld
	// Twins are the cluster's prefixes that others stand for. The reverse names of Virtual are answered with those of
	// Real. The cluster may name addresses in Real even if they lie in VirtualSubnets; those that mean this host, such
	// as loopback and its own, clients get as virtual addresses only. Twins that are not valid are left out.
	Twins []Twin
	// Hidden are the prefixes whose addresses programs cannot use: in the cluster's answers, the address that the
	// narrowest of Twins gives stands in place of each. Where there is none, what Withheld says holds, or the address is
	// taken out. An answer that loses all it says so is replaced by SERVFAIL, as with Withheld. A change takes effect
	// with the next reply and costs nothing of what is remembered.
	Hidden []netip.Prefix
	// VirtualSubnets are where this connection's virtual addresses come from. Nobody's answers name addresses in them:
	// the cluster's and the host's own resolvers' lose theirs.
	VirtualSubnets []netip.Prefix
	// OthersVirtual are the virtual addresses of other connections on this host. The cluster's answers lose them; those
	// of the host's own resolvers, another connection's among them, may name them.
	OthersVirtual []netip.Prefix
	// Pools are the prefixes that the addresses leased from [Options.Pool] lie in. Their reverse names are answered
	// with those of the addresses they stand for, and denied if they stand for none.
	Pools []netip.Prefix
	// Agents are the workloads that some of the cluster's addresses are reached through, and whose pods are asked about
	// those. Subnets that are not valid are left out.
	Agents []Agent
	// Gateway are the addresses of the gateway's forwarder in the tunnel. Empty is the same as Up being false.
	Gateway []netip.AddrPort
	// Upstreams are the host's own resolvers in their order of preference.
	Upstreams []netip.AddrPort
	// Search is the search list that programs on this host append to short names, in order. The server itself appends
	// nothing; [Server.Trace] follows it.
	Search []string
	// Ndots is the number of dots from which on programs try a name as it is before the search list; 0 means 1, as on
	// nearly every host. Only [Server.Trace] uses it.
	Ndots int
	// LookupTimeout bounds one question to the cluster; 0 means 4 s.
	LookupTimeout time.Duration
	// Up reports that the tunnel carries packets.
	Up bool
	// Generation drops what is remembered of the cluster whenever it changes, in either direction.
	Generation uint64

	domains []string // namespaces under which names are completed; see normalized
	zones   []string // the cluster's own; see normalized
}

const (
	defaultClusterDomain = "cluster.local"
	defaultLookupTimeout = 4 * time.Second
	defaultNdots         = 1 // resolv.conf(5)
)

// normalized returns a copy that shares no memory with c, with names in the form Route compares (lower case, one
// trailing dot) and addresses and prefixes in their normal form. Invalid addresses and prefixes are left out.
func (c Config) normalized() Config {
	if c.ClusterDomain == "" {
		c.ClusterDomain = defaultClusterDomain
	}
	if c.LookupTimeout <= 0 {
		c.LookupTimeout = defaultLookupTimeout
	}
	c.ClusterDomain = canonical(c.ClusterDomain)
	c.Namespace = strings.TrimSuffix(canonical(c.Namespace), ".")
	c.Connection = strings.TrimSuffix(canonical(c.Connection), ".")
	c.Namespaces = canonicalAll(c.Namespaces)
	c.IncludeSuffixes = canonicalAll(c.IncludeSuffixes)
	c.Search = canonicalAll(c.Search)
	c.Reverse = normalPrefixes(c.Reverse)
	c.Agents = normalAgents(c.Agents)
	c.Gateway = normalServers(c.Gateway)
	c.Upstreams = normalServers(c.Upstreams)
	c.Withheld = slices.Clone(c.Withheld)
	c.Twins = normalTwins(c.Twins)
	c.Hidden = normalPrefixes(c.Hidden)
	c.VirtualSubnets = normalPrefixes(c.VirtualSubnets)
	c.OthersVirtual = normalPrefixes(c.OthersVirtual)
	c.Pools = normalPrefixes(c.Pools)
	if c.Ndots <= 0 {
		c.Ndots = defaultNdots
	}
	c.domains = c.routingDomains()
	c.Earlier = normalEarlier(c.Earlier)
	c.zones = c.ownZones()
	return c
}

// routingDomains are the namespaces, as names, under which NAME.NAMESPACE is completed.
func (c *Config) routingDomains() []string {
	var domains []string
	for _, ns := range append([]string{c.Namespace}, c.Namespaces...) {
		ns = canonical(ns)
		if ns != "" && !strings.Contains(strings.TrimSuffix(ns, "."), ".") && !Reserved(ns) && !slices.Contains(domains, ns) {
			domains = append(domains, ns)
		}
	}
	return domains
}

// Domains returns, sorted, the names below which questions may go to the cluster: what a host with split DNS has to
// send to this resolver. Single labels are not among them; hosts find those through their search list.
func (c Config) Domains() []string {
	c = c.normalized()
	domains := slices.Clone(c.zones)
	if len(c.Earlier) == 0 {
		domains = append(domains, c.shortZones()...)
	}
	domains = slices.DeleteFunc(domains, func(d string) bool { _, ceded := c.elsewhere(d); return ceded })
	if c.Connection != "" {
		domains = append(domains, c.Connection+"."+aliasZone)
	}
	for i := range domains {
		domains[i] = strings.TrimSuffix(domains[i], ".")
	}
	slices.Sort(domains)
	return slices.Compact(domains)
}

// sameRoutes reports whether both configurations decide alike on every question.
func (c *Config) sameRoutes(o *Config) bool {
	return c.ClusterDomain == o.ClusterDomain && c.Namespace == o.Namespace && c.Connection == o.Connection &&
		slices.Equal(c.Namespaces, o.Namespaces) && sameEarlier(c.Earlier, o.Earlier) && slices.Equal(c.IncludeSuffixes, o.IncludeSuffixes) &&
		slices.Equal(c.Reverse, o.Reverse) && slices.Equal(c.Twins, o.Twins) && slices.Equal(c.Pools, o.Pools) &&
		sameAgents(c, o, (*Agent).sameSuffixes)
}

// sameCluster reports whether what the cluster answered under o still holds under c, given that both have the same
// routes. What is hidden or withheld does not matter: see outward.
func (c *Config) sameCluster(o *Config) bool {
	return c.Up == o.Up && c.Generation == o.Generation && slices.Equal(c.Gateway, o.Gateway) &&
		slices.Equal(c.VirtualSubnets, o.VirtualSubnets) && slices.Equal(c.OthersVirtual, o.OthersVirtual) &&
		sameAgents(c, o, (*Agent).sameSubnets) && sameAgents(c, o, (*Agent).sameServers)
}

// canonical returns name in lower case with one trailing dot, and "" for "" and the root.
func canonical(name string) string {
	name = strings.ToLower(strings.Trim(name, "."))
	if name == "" {
		return ""
	}
	return name + "."
}

func canonicalAll(names []string) []string {
	var out []string
	for _, name := range names {
		if name = canonical(name); name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func normalPrefixes(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		if p.IsValid() && !p.Addr().Is4In6() {
			out = append(out, p.Masked())
		}
	}
	return out
}

func normalServers(servers []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range servers {
		s = netip.AddrPortFrom(s.Addr().Unmap(), s.Port())
		if s.IsValid() && s.Port() != 0 && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
