package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Peer is one connection of a workstation: created by the node with the user's own credentials,
// answered by the gateway in status. Deleting it ends the connection for good.
type Peer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   PeerSpec   `json:"spec"`
	Status PeerStatus `json:"status,omitempty"`
}

// PeerList is a list of Peers as the API server returns it.
type PeerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Peer `json:"items"`
}

// PeerSpec is what the node asks for.
type PeerSpec struct {
	// User is the name the API server knows the creator by (SelfSubjectReview); an admission policy
	// refuses any other. Immutable.
	User string `json:"user"`
	// PublicKey is the workstation's WireGuard public key, base64 of 32 bytes. It is made anew by
	// every start of the node and never stored. Immutable.
	PublicKey string `json:"publicKey"`
	// Addresses are the workstation's overlay addresses, at most one /32 (even) and one /128 (even).
	// The gateway's own address is each one's odd neighbour (RFC 3021, RFC 6164).
	// Immutable.
	Addresses []string `json:"addresses"`
	// Twins are the prefixes that stand 1:1 for real ones, at most 64; empty means none are translated.
	// They are for this Peer alone and may change while it is served: flows that would then lead elsewhere
	// end, all others live on, and status.observedGeneration says when the change is in force.
	Twins []Twin `json:"twins,omitempty"`
	// Client describes the workstation to those who read `kubectl get peers`.
	Client ClientInfo `json:"client,omitempty"`
}

// Twin maps a virtual prefix 1:1 to a real one of the same length and family. Virtual lies in 240.0.0.0/4 or
// fc00::/7, apart from the other twins, the Peer's addresses and the cluster's prefixes. Real may be any
// unicast prefix, of one twin each: what may be reached is decided as if it were asked for directly.
type Twin struct {
	Real    string `json:"real"`
	Virtual string `json:"virtual"`
}

// ClientInfo is short free text with a pattern, shown to the team.
type ClientInfo struct {
	OS      string `json:"os,omitempty"`
	Version string `json:"version,omitempty"`
	Host    string `json:"host,omitempty"`
}

// PeerStatus is what the gateway answers. Only the gateway may write it.
type PeerStatus struct {
	// ObservedGeneration is the generation of the spec that this status speaks of.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions hold [PeerReady] and what stands in its way.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Gateway is the pod that serves this Peer; nil until one has taken it up.
	Gateway *PeerGateway `json:"gateway,omitempty"`
	// LastHandshake is the time of the latest WireGuard handshake; nil before the first.
	LastHandshake *metav1.Time `json:"lastHandshake,omitempty"`
	// Carrier is how the packets travel now: "apiserver" or "udp".
	Carrier string `json:"carrier,omitempty"`
	// ReceivedBytes and SentBytes count the WireGuard traffic as the gateway sees it, brought up to
	// date at most once a minute.
	ReceivedBytes int64 `json:"receivedBytes,omitempty"`
	SentBytes     int64 `json:"sentBytes,omitempty"`
}

// PeerGateway says where a Peer is served.
type PeerGateway struct {
	// Pod and PodUID name the pod whose carrier port is to be dialled.
	Pod    string `json:"pod"`
	PodUID string `json:"podUID,omitempty"`
	// PublicKey is the gateway's WireGuard public key, made in memory per pod.
	PublicKey string `json:"publicKey"`
	// Version is the gateway's own version, compared with the node's.
	Version string `json:"version,omitempty"`
	// CarrierPort is the TCP port on the pod's loopback that speaks the framed carrier protocol.
	CarrierPort int32 `json:"carrierPort,omitempty"`
	// Endpoints are UDP endpoints, "address:port"; empty where only the API server leads to the pod.
	Endpoints []string `json:"endpoints,omitempty"`
	// DNS are the addresses at which the gateway's resolver answers this Peer, port 53.
	DNS []string `json:"dns,omitempty"`
}

// Condition types and reasons of a Peer.
const (
	// PeerReady is True while the gateway accepts WireGuard packets of this Peer.
	PeerReady = "Ready"

	ReasonAccepted         = "Accepted"
	ReasonInvalidSpec      = "InvalidSpec"
	ReasonDuplicateKey     = "DuplicateKey"
	ReasonAddressConflict  = "AddressConflict"
	ReasonGatewayShutdown  = "GatewayShutdown"
	ReasonTooManyPeers     = "TooManyPeers"
	ReasonUnsupportedField = "UnsupportedField"
)
