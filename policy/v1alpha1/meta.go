package v1alpha1

// Names of the API group, as they appear in apiVersion, kind and URLs.
const (
	Group   = "culvert.dev"
	Version = "v1alpha1"

	PeerKind     = "Peer"
	PeerResource = "peers"

	PolicyKind     = "Policy"
	PolicyResource = "policies"

	// DefaultNamespace is where the gateway, Peers and the team's Policy live unless told otherwise.
	DefaultNamespace = "culvert"
	// DefaultPolicyName is the one Policy that the gateway and the nodes read.
	DefaultPolicyName = "default"
	// ManageVerb is the RBAC verb on peers that lets its holder change Peers of other users.
	ManageVerb = "manage"
)
