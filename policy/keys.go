package policy

import (
	"slices"
	"strings"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// ValueType says what a setting holds.
type ValueType string

// Value types.
const (
	TypePrefixes ValueType = "list of prefixes"
	TypeNames    ValueType = "list of names"
	TypeDuration ValueType = "duration"
	TypeInteger  ValueType = "integer"
	// TypeWord is one of the words in the key's Words.
	TypeWord ValueType = "word"
	// TypeConflicts is a list of mappings {subnet, resolve} in a file, of SUBNET=RESOLVE in a flag.
	TypeConflicts ValueType = "list of {subnet, resolve}"
	// TypeProxyVia is a list of mappings {subnet, workload} in a file, of SUBNET=WORKLOAD in a flag.
	TypeProxyVia ValueType = "list of {subnet, workload}"
	// TypePrefix is one prefix, or "" for none.
	TypePrefix ValueType = "prefix"
)

// IsList reports whether values of the type are lists.
func (t ValueType) IsList() bool {
	return t == TypePrefixes || t == TypeNames || t.Fields() != nil
}

// Key describes one setting: all that flags, environment, files and documentation need to know.
type Key struct {
	// Path is the place in a file, "routing.alsoProxySubnets".
	Path string
	Type ValueType
	// Default is the value as it would be written; "" for an empty list and for no prefix.
	Default string
	// Flag is the name without dashes, Env the variable's name; both are "" for what only a Policy has.
	Flag string
	Env  string
	// Words are the accepted values, if there are few. Offers are values worth offering where a user types:
	// Words, or some of many.
	Words  []string
	Offers []string
	// Doc is one or two sentences; Example a value worth showing.
	Doc     string
	Example string

	check func(string) (string, error) // gives the normal form of one value
	field func(*v1alpha1.Settings) any // points at the field: *[]string, *[]ConflictRule, *[]ProxyVia, *string or *int32
}

// PolicyOnly reports whether the key may stand in a Policy of the cluster only.
func (k Key) PolicyOnly() bool { return k.Flag == "" }

var keys = []Key{
	{
		Path: "routing.allowConflictingSubnets", Type: TypePrefixes, Flag: "allow-conflicting-subnets", Example: "10.128.0.0/9",
		Doc:   "Prefixes in which the cluster may take its addresses from whoever routes them on this host, such as a VPN; service, pods, also and all stand for the cluster's own.",
		check: symbolOr(anyPrefix), Offers: symbols, field: func(s *v1alpha1.Settings) any { return &s.Routing.AllowConflictingSubnets },
	},
	{
		Path: "routing.alsoProxySubnets", Type: TypePrefixes, Flag: "also-proxy", Example: "192.0.2.0/24",
		Doc:   "Prefixes reached through the cluster although they belong to neither services nor pods.",
		check: routedPrefix, field: func(s *v1alpha1.Settings) any { return &s.Routing.AlsoProxySubnets },
	},
	{
		Path: "routing.neverProxySubnets", Type: TypePrefixes, Flag: "never-proxy", Example: "10.130.7.9/32",
		Doc:   "Prefixes that keep the route they have without the tunnel. Against an also-proxied prefix the more specific wins.",
		check: anyPrefix, field: func(s *v1alpha1.Settings) any { return &s.Routing.NeverProxySubnets },
	},
	{
		Path: "routing.onConflict", Type: TypeWord, Default: string(ResolveError), Flag: "on-conflict", Example: string(ResolveVirtualize),
		Words: defaults, Offers: defaults,
		Doc:   "What becomes of overlaps with other networks that nothing else settles: error refuses to connect, yield leaves them to the other network, virtualize leaves them too and reaches the cluster's by virtual addresses.",
		check: oneOf(defaults...), field: func(s *v1alpha1.Settings) any { return &s.Routing.OnConflict },
	},
	{
		Path: "routing.conflicts", Type: TypeConflicts, Flag: "conflict", Example: "10.132.64.0/18=yield",
		Doc:   "Settles overlaps prefix by prefix, the most specific counts: allow lets the cluster have them, yield leaves them to the other network, virtualize leaves them too and reaches the cluster's by virtual addresses.",
		check: conflictRule, Offers: paired(symbols, resolves), field: func(s *v1alpha1.Settings) any { return &s.Routing.Conflicts },
	},
	{
		Path: "cluster.virtualIPSubnet", Type: TypePrefix, Flag: "virtual-ip-subnet", Example: DefaultVirtualSubnet.String(),
		Doc:   "The IPv4 prefix that virtual addresses are taken from; \"\" finds a free one.",
		check: virtualIPSubnet, field: func(s *v1alpha1.Settings) any { return &s.Cluster.VirtualIPSubnet },
	},
	{
		Path: "cluster.virtualIPv6Subnet", Type: TypePrefix, Flag: "virtual-ipv6-subnet", Example: "fd00:246::/48",
		Doc:   "The IPv6 prefix that virtual addresses are taken from; \"\" finds a free one.",
		check: virtualIPv6Subnet, field: func(s *v1alpha1.Settings) any { return &s.Cluster.VirtualIPv6Subnet },
	},
	{
		Path: "cluster.serviceSubnets", Type: TypePrefixes, Flag: "service-subnets", Example: "10.130.0.0/16",
		Doc:   "The cluster's service prefixes, instead of those the gateway found.",
		check: routedPrefix, field: func(s *v1alpha1.Settings) any { return &s.Cluster.ServiceSubnets },
	},
	{
		Path: "cluster.podSubnets", Type: TypePrefixes, Flag: "pod-subnets", Example: "10.132.0.0/16",
		Doc:   "The cluster's pod prefixes, instead of those the gateway found.",
		check: routedPrefix, field: func(s *v1alpha1.Settings) any { return &s.Cluster.PodSubnets },
	},
	{
		Path: "proxyVia", Type: TypeProxyVia, Flag: "proxy-via", Example: "all=" + WorkloadGateway,
		Doc:   "Subnets reached by virtual addresses, whoever else routes them, and the workload that reaches them: gateway; service, pods, also and all stand for the cluster's own. No two may have an address in common.",
		check: proxyVia, Offers: paired(symbols, workloads), field: func(s *v1alpha1.Settings) any { return &s.ProxyVia },
	},
	{
		Path: "dns.namespaces", Type: TypeNames, Flag: "dns-namespaces", Example: "shop",
		Doc:   "Namespaces besides the connected one whose services resolve as NAME.NAMESPACE.",
		check: namespace, field: func(s *v1alpha1.Settings) any { return &s.DNS.Namespaces },
	},
	{
		Path: "dns.includeSuffixes", Type: TypeNames, Flag: "dns-include-suffixes", Example: "corp.example",
		Doc:   "Further domains whose names are asked of the cluster's resolver.",
		check: suffix, field: func(s *v1alpha1.Settings) any { return &s.DNS.IncludeSuffixes },
	},
	{
		Path: "dns.lookupTimeout", Type: TypeDuration, Default: "4s", Flag: "dns-lookup-timeout", Example: "2s",
		Doc:   "How long one question to the cluster may take, 100ms to 1m.",
		check: lookupTimeout, field: func(s *v1alpha1.Settings) any { return &s.DNS.LookupTimeout },
	},
	{
		Path: "transport.mtu", Type: TypeInteger, Default: "0", Flag: "mtu", Example: "1380",
		Doc:   "MTU of the tunnel in bytes of the inner IP packet, 1280 to 9000; 0 derives it from the route.",
		check: mtu, field: func(s *v1alpha1.Settings) any { return &s.Transport.MTU },
	},
	{
		Path: "enforce", Type: TypeNames, Example: "routing.allowConflictingSubnets",
		Doc:   "Keys of the team's Policy that nobody may loosen; what goes beyond is cut back. Only a Policy of the cluster has it.",
		field: func(s *v1alpha1.Settings) any { return &s.Enforce }, // its check speaks of all keys, see init
	},
}

func init() {
	for i := range keys {
		if keys[i].PolicyOnly() {
			keys[i].check = enforceable
			continue
		}
		keys[i].Env = "CULVERT_" + strings.ToUpper(strings.ReplaceAll(keys[i].Flag, "-", "_"))
	}
}

// Keys returns every setting, in the order a file shows them. The caller owns the slice.
func Keys() []Key { return slices.Clone(keys) }

// KeyByPath returns the setting with the given path.
func KeyByPath(path string) (Key, bool) {
	i := slices.IndexFunc(keys, func(k Key) bool { return k.Path == path })
	if i < 0 {
		return Key{}, false
	}
	return keys[i], true
}

// sections returns the first parts of all paths.
func sections() []string {
	var out []string
	for _, k := range keys {
		if s, _, _ := strings.Cut(k.Path, "."); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// list returns the entries of a list as text; nil if the settings do not say anything.
func (k Key) list(s *v1alpha1.Settings) []string {
	switch f := k.field(s).(type) {
	case *[]v1alpha1.ConflictRule:
		return entriesOf(*f, conflictParts)
	case *[]v1alpha1.ProxyVia:
		return entriesOf(*f, viaParts)
	}
	return *k.field(s).(*[]string)
}

// setList stores entries that check has accepted.
func (k Key) setList(s *v1alpha1.Settings, texts []string) {
	switch f := k.field(s).(type) {
	case *[]v1alpha1.ConflictRule:
		*f = pairsOf(texts, conflictParts)
	case *[]v1alpha1.ProxyVia:
		*f = pairsOf(texts, viaParts)
	case *[]string:
		*f = texts
	}
}

// keysIn returns the last parts of the paths in one section.
func keysIn(section string) []string {
	var out []string
	for _, k := range keys {
		if s, name, _ := strings.Cut(k.Path, "."); s == section {
			out = append(out, name)
		}
	}
	return out
}
