package dns

import (
	"fmt"
	"slices"
	"strings"
)

// Earlier is another connection on this host, whose resolver was there before this one. It keeps the names
// that it answers; they are asked of [Config.Upstreams], where its resolver is or those above it are.
type Earlier struct {
	// Connection is its name.
	Connection string
	// Domains are those it has: its [Config.Domains].
	Domains []string
}

// normalEarlier returns a copy whose names have the form Route compares.
func normalEarlier(list []Earlier) []Earlier {
	var out []Earlier
	for _, e := range list {
		out = append(out, Earlier{strings.TrimSuffix(canonical(e.Connection), "."), canonicalAll(e.Domains)})
	}
	return out
}

func sameEarlier(a, b []Earlier) bool {
	return slices.EqualFunc(a, b, func(x, y Earlier) bool { return x.Connection == y.Connection && slices.Equal(x.Domains, y.Domains) })
}

// ceded returns the earlier connection that name belongs to, with its domain; "" for none. Of two domains that
// both fit, the longer one counts, as everywhere in DNS, and of equal ones the earlier connection's.
func (c *Config) ceded(name string) (connection, domain string) {
	for _, e := range c.Earlier {
		for _, d := range e.Domains {
			if under(name, d) && len(d) > len(domain) {
				connection, domain = e.Connection, d
			}
		}
	}
	if connection == "" || len(c.ownDomain(name)) > len(domain) {
		return "", ""
	}
	return connection, domain
}

// ownDomain returns the longest domain of the cluster, not of short names, that name is in; "" for none.
func (c *Config) ownDomain(name string) string {
	longest := ""
	for _, d := range c.zones {
		if under(name, d) && len(d) > len(longest) {
			longest = d
		}
	}
	return longest
}

// ownZones are the absolute domains of the cluster.
func (c *Config) ownZones() []string {
	zones := append([]string{c.ClusterDomain}, c.IncludeSuffixes...)
	for _, a := range c.Agents {
		zones = append(zones, a.Suffixes...)
	}
	for _, prefix := range slices.Concat(c.Reverse, c.Pools, c.virtual()) {
		zones = append(zones, ReverseZones(prefix)...)
	}
	return zones
}

// Ceded returns, of this connection's domains, those that are an earlier connection's instead, with that one's
// name. Short names are the first connection's alone, whichever domains it has.
func (c Config) Ceded() map[string]string {
	c = c.normalized()
	out := map[string]string{}
	for _, d := range slices.Concat(c.zones, c.shortZones()) {
		if connection, _ := c.ceded(d); connection != "" {
			out[strings.TrimSuffix(d, ".")] = connection
		}
	}
	return out
}

// shortZones are the domains under which short names of services are completed.
func (c *Config) shortZones() []string { return append([]string{"svc."}, c.domains...) }

// elsewhere is the decision for a name that an earlier connection answers, if it does.
func (c *Config) elsewhere(name string) (Decision, bool) {
	if len(c.Earlier) == 0 {
		return Decision{}, false
	}
	connection, domain := c.ceded(name)
	if connection == "" {
		return Decision{}, false
	}
	reason := fmt.Sprintf("names of %s are those of connection %s", strings.TrimSuffix(domain, "."), connection)
	return Decision{Source: SourceUpstream, Name: name, Reason: reason}, true
}
