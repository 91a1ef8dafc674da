package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Policy is what a team agreed: settings every connected workstation starts from. The chart renders
// it from its `client:` values; the gateway fills status.
type Policy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   Settings     `json:"spec,omitempty"`
	Status PolicyStatus `json:"status,omitempty"`
}

// PolicyList is a list of Policies as the API server returns it.
type PolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Policy `json:"items"`
}

// PolicyStatus is what is the same for every workstation.
type PolicyStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Subnets are the cluster's own prefixes as discovered or configured.
	Subnets ClusterSubnets `json:"subnets,omitempty"`
	// ClusterUID identifies the cluster across address and name changes; empty if it cannot be read.
	ClusterUID string `json:"clusterUID,omitempty"`
	// ClusterDomain is the DNS suffix of services, without a trailing dot; "" means cluster.local.
	ClusterDomain string `json:"clusterDomain,omitempty"`
	// Problems are what the gateway found wrong in spec; a Policy with problems is ignored as a whole.
	Problems []string `json:"problems,omitempty"`
}

// ClusterSubnets are the prefixes of services and pods.
type ClusterSubnets struct {
	Services []Subnet `json:"services,omitempty"`
	Pods     []Subnet `json:"pods,omitempty"`
}

// Subnet is a prefix and how it became known.
type Subnet struct {
	CIDR string `json:"cidr"`
	// Source is for people, such as "ServiceCIDR kubernetes" or "chart value podSubnets".
	Source string `json:"source,omitempty"`
}
