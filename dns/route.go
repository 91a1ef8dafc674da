package dns

import (
	"fmt"
	"net/netip"
	"strings"

	wire "github.com/miekg/dns"
	"golang.org/x/net/publicsuffix"
)

// aliasZone holds, per connection, another name for everything in its cluster.
const aliasZone = "culvert.internal."

// Source says who answers a question.
type Source uint8

const (
	// SourceUpstream: the host's own resolvers, asked as the host would have asked them.
	SourceUpstream Source = iota
	// SourceCluster: the cluster's resolver, through the gateway.
	SourceCluster
	// SourceNone: nobody is asked; the name is denied here.
	SourceNone
	// SourceAgent: the agent in a pod of a workload, instead of the gateway.
	SourceAgent
)

func (s Source) String() string {
	return [...]string{"upstream", "cluster", "none", "agent"}[s]
}

// Decision is what [Route] finds for one question.
type Decision struct {
	Source Source
	// Name is the absolute name to ask the source for. Where it is not the name of the question, the answer's
	// records get the question's name back.
	Name string
	// Fallback reports that the host's resolvers are asked for the question as it was if the cluster does not know
	// Name, or cannot be asked.
	Fallback bool
	// Workload is whose agent is asked, of SourceAgent.
	Workload string
	// Reason is for people: why, in a few words.
	Reason string

	exists bool       // of SourceNone: the name has no records, but names below it
	agent  int        // of SourceAgent: its index
	vip    netip.Addr // of SourceNone: the address whose reverse name this is; a pool may know what it stands for
}

// Route decides who is asked for qname (absolute or not, in presentation form) and qtype. It is pure.
func Route(cfg Config, qname string, qtype uint16) Decision {
	cfg = cfg.normalized()
	return cfg.route(qname, qtype)
}

// route is Route for a normalized configuration.
func (c *Config) route(qname string, qtype uint16) Decision { return c.via(c.side(qname, qtype)) }

// side is route as if the gateway were asked for everything that is the cluster's.
func (c *Config) side(qname string, qtype uint16) Decision {
	name := wire.CanonicalName(qname)
	if c.Connection != "" {
		if inner, ok := strings.CutSuffix(name, "."+c.Connection+"."+aliasZone); ok && !escaped(inner) {
			return c.alias(inner + ".")
		}
	}
	if decision, ok := c.elsewhere(name); ok {
		return decision
	}
	switch {
	case under(name, c.ClusterDomain):
		return c.cluster(name, "in the cluster domain")
	case under(name, "svc.") && name != "svc." && len(c.Earlier) == 0:
		return c.cluster(name+c.ClusterDomain, "NAME.NAMESPACE.svc")
	}
	if d, ok := c.virtualReverse(name); ok {
		return d
	}
	if _, suffix := c.suffix(name); suffix != "" {
		return c.cluster(name, "in the suffix "+suffix)
	}
	if c.reverse(name) {
		return Decision{Source: SourceCluster, Name: name, Reason: "reverse name of a cluster subnet"}
	}
	for _, suffix := range c.IncludeSuffixes {
		if under(name, suffix) {
			return Decision{Source: SourceCluster, Name: name, Reason: "in the included suffix " + suffix}
		}
	}
	return c.complete(name, qtype)
}

// complete decides about the names that might be short for a service: NAME and NAME.NAMESPACE.
func (c *Config) complete(name string, qtype uint16) Decision {
	outside := Decision{Source: SourceUpstream, Name: name, Reason: "not a name of the cluster"}
	if firstLabel(name) == "wpad" {
		outside.Reason = "wpad is never asked of the cluster"
		return outside
	}
	for _, domain := range c.domains {
		if name != domain && under(name, domain) {
			return c.short(name+"svc."+c.ClusterDomain, "in the namespace "+strings.TrimSuffix(domain, "."), outside)
		}
	}
	label := strings.TrimSuffix(name, ".")
	if c.Namespace == "" || !serviceLabel(label) || label == "localhost" || !addressing(qtype) {
		return outside
	}
	return c.short(name+c.Namespace+".svc."+c.ClusterDomain, "a service of the namespace "+c.Namespace, outside)
}

// short is the decision for a name that the cluster may know under full; otherwise it is left to the host's resolvers.
// Of several connections the first has all short names.
func (c *Config) short(full, reason string, outside Decision) Decision {
	if len(c.Earlier) > 0 {
		outside.Reason = "short names are those of connection " + c.Earlier[0].Connection
		return outside
	}
	if _, ok := wire.IsDomainName(full); !ok {
		return outside
	}
	return Decision{Source: SourceCluster, Name: full, Fallback: true, Reason: reason}
}

// alias decides about the part of a name before CONNECTION.culvert.internal: a name of the cluster, short or not.
func (c *Config) alias(inner string) Decision {
	const reason = "alias in " + aliasZone
	full := inner
	switch {
	case under(inner, c.ClusterDomain):
	case under(inner, "svc."):
		full = inner + c.ClusterDomain
	case strings.Count(inner, ".") == 1 && c.Namespace != "":
		full = inner + c.Namespace + ".svc." + c.ClusterDomain
	default:
		full = inner + "svc." + c.ClusterDomain
	}
	return c.cluster(full, reason)
}

// cluster is the decision for a name of the cluster, wherever it came from.
func (c *Config) cluster(full, reason string) Decision {
	if _, ok := wire.IsDomainName(full); !ok {
		return Decision{Source: SourceNone, Name: full, Reason: "the completed name is too long"}
	}
	if firstLabel(full) == "wpad" {
		// Whoever answers for wpad chooses the proxy of every browser that looks for one.
		return Decision{Source: SourceNone, Name: full, Reason: "wpad is never asked of the cluster"}
	}
	return Decision{Source: SourceCluster, Name: full, Reason: reason}
}

// Reserved reports whether a namespace called name cannot be a routing domain, because the name is a public top-level
// domain or set aside for names that are nobody's service (RFC 6761, RFC 6762, RFC 7686).
func Reserved(name string) bool {
	name = strings.TrimSuffix(canonical(name), ".")
	switch name {
	case "arpa", "invalid", "local", "localhost", "onion":
		return true
	}
	// With a label in front, rules such as *.ck count too.
	_, icann := publicsuffix.PublicSuffix("x." + name)
	return icann
}

// serviceLabel reports whether label can name a service: an RFC 1123 label.
func serviceLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		c := label[i]
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// addressing reports whether a program asks for qtype on its way to a host. The other types, asked of a single label,
// are about top-level domains: validators and resolvers ask com. for DS and NS.
func addressing(qtype uint16) bool {
	switch qtype {
	case wire.TypeA, wire.TypeAAAA, wire.TypeHTTPS, wire.TypeSVCB, wire.TypeCNAME, wire.TypeANY:
		return true
	}
	return false
}

// under reports whether name is zone or below it. Both are canonical and absolute.
func under(name, zone string) bool {
	if !strings.HasSuffix(name, zone) {
		return false
	}
	if len(name) == len(zone) {
		return true
	}
	head := name[:len(name)-len(zone)]
	return head[len(head)-1] == '.' && !escaped(head[:len(head)-1])
}

// escaped reports whether the character that follows head in a name's presentation form is escaped.
func escaped(head string) bool {
	return (len(head)-len(strings.TrimRight(head, `\`)))%2 == 1
}

func firstLabel(name string) string {
	label, _, _ := strings.Cut(name, ".")
	return label
}

func (d Decision) String() string {
	return fmt.Sprintf("%s %s (%s)", d.Source, d.Name, d.Reason)
}
