package v1alpha1

// Settings are the knobs of a connection, under the same names in every source. The zero value
// means "nothing said here": lists replace those of a source of lower precedence, an empty one (not nil)
// with none, and an entry that begins with "+" extends them instead.
type Settings struct {
	Routing RoutingSettings `json:"routing,omitempty"`
	Cluster ClusterSettings `json:"cluster,omitempty"`
	// ProxyVia are the subnets that are reached by virtual addresses, whoever else routes them, and the
	// workload that reaches each. No two may have an address in common.
	ProxyVia  []ProxyVia        `json:"proxyVia,omitzero"`
	DNS       DNSSettings       `json:"dns,omitempty"`
	Transport TransportSettings `json:"transport,omitempty"`
	// Enforce are the paths of keys that no other source may loosen, such as
	// "routing.allowConflictingSubnets". Only a Policy of the cluster has it.
	Enforce []string `json:"enforce,omitzero"`
}

// RoutingSettings say which prefixes go through the tunnel.
type RoutingSettings struct {
	// AllowConflictingSubnets are prefixes in which the cluster may take addresses from whoever
	// routes them on the workstation; the symbols service, pods, also and all stand for the cluster's.
	AllowConflictingSubnets []string `json:"allowConflictingSubnets,omitzero"`
	// AlsoProxySubnets are reached through the tunnel although they belong to neither services nor pods.
	AlsoProxySubnets []string `json:"alsoProxySubnets,omitzero"`
	// NeverProxySubnets keep the route they had. Of an also and a never the more specific wins.
	NeverProxySubnets []string `json:"neverProxySubnets,omitzero"`
	// OnConflict is what becomes of overlaps that nothing else settles: "error" (also if empty) refuses
	// to connect, "yield" leaves them to the other network, "virtualize" hides them behind virtual addresses.
	OnConflict string `json:"onConflict,omitempty"`
	// Conflicts settle overlaps prefix by prefix; the most specific counts.
	Conflicts []ConflictRule `json:"conflicts,omitzero"`
}

// ConflictRule settles the overlaps within one prefix.
type ConflictRule struct {
	// Subnet is a prefix, or one of the symbols service, pods, also, all.
	Subnet string `json:"subnet"`
	// Resolve is "allow", so that the cluster has them, "yield", so that the other network keeps them, or
	// "virtualize", so that it keeps them and the cluster's are reached by virtual addresses.
	Resolve string `json:"resolve"`
}

// ProxyVia is a subnet that a workload reaches.
type ProxyVia struct {
	// Subnet is a prefix, or one of the symbols service, pods, also, all.
	Subnet string `json:"subnet"`
	// Workload is "gateway".
	Workload string `json:"workload"`
}

// ClusterSettings say where virtual addresses come from, and override what the gateway discovered.
type ClusterSettings struct {
	// VirtualIPSubnet is the IPv4 prefix that virtual addresses are taken from, VirtualIPv6Subnet the IPv6
	// one; "" finds a free one.
	VirtualIPSubnet   string `json:"virtualIPSubnet,omitempty"`
	VirtualIPv6Subnet string `json:"virtualIPv6Subnet,omitempty"`
	// ServiceSubnets and PodSubnets stand in for what was discovered.
	ServiceSubnets []string `json:"serviceSubnets,omitzero"`
	PodSubnets     []string `json:"podSubnets,omitzero"`
}

// DNSSettings say which names are asked of the cluster.
type DNSSettings struct {
	// Namespaces become routing domains besides the connected one, so that NAME.NAMESPACE resolves.
	Namespaces []string `json:"namespaces,omitzero"`
	// IncludeSuffixes are further domains asked of the cluster's resolver.
	IncludeSuffixes []string `json:"includeSuffixes,omitzero"`
	// LookupTimeout bounds one question to the cluster, a Go duration; "" means 4s.
	LookupTimeout string `json:"lookupTimeout,omitempty"`
}

// TransportSettings say how packets travel.
type TransportSettings struct {
	// MTU of the tunnel in bytes of the inner IP packet, 1280 to 9000; 0 means derived from the route.
	MTU int32 `json:"mtu,omitempty"`
}
