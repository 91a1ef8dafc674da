package api

import (
	"net/netip"
	"time"

	"github.com/culvert-dev/culvert/dns/vip"
)

// StatusVersion is the version of Status as JSON; it grows when a field changes its meaning.
const StatusVersion = 1

// State is where a connection stands.
type State string

// The states of a connection.
//
//	connecting ──► connected ◄──► reconnecting
//	     │             │               │
//	     └─────────────┴───────────────┴──► closed (final: the host is restored)
const (
	Connecting   State = "connecting"
	Connected    State = "connected"
	Reconnecting State = "reconnecting"
	Closed       State = "closed"
)

// Status is a snapshot of one connection.
type Status struct {
	Version int       `json:"version"`
	Name    string    `json:"name"`
	State   State     `json:"state"`
	Reason  string    `json:"reason,omitempty"` // why the state is not connected
	Since   time.Time `json:"since"`            // when the state began

	Program   string    `json:"program"` // version of the running node
	Cluster   Cluster   `json:"cluster"`
	Processes Processes `json:"processes"`
	Peer      Peer      `json:"peer"`
	Gateway   Gateway   `json:"gateway"`
	Carrier   Carrier   `json:"carrier"`
	WireGuard WireGuard `json:"wireguard"`
	Routes    []Route   `json:"routes"`
	Conflicts []string  `json:"conflicts,omitempty"`
	// Yielded are the cluster's addresses that other networks of the host keep.
	Yielded []netip.Prefix `json:"yielded,omitempty"`
	// Virtual says which addresses stand for the cluster's; nil before there is a plan.
	Virtual *Virtual `json:"virtual,omitempty"`
	// Reach is what the latest probe of each subnet showed.
	Reach    []Reach  `json:"reach,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	DNS      DNS      `json:"dns"`
}

// Cluster says what the connection leads to, and as whom.
type Cluster struct {
	Context   string `json:"context"`
	Server    string `json:"server"`
	UID       string `json:"uid,omitempty"`
	User      string `json:"user"`
	Namespace string `json:"namespace"`
}

// Processes are process ids; 0 where one is not known.
type Processes struct {
	Node   int `json:"node"`
	Helper int `json:"helper"`
	Guard  int `json:"guard"`
}

// Peer names the object that stands for this connection in the cluster.
type Peer struct {
	Name      string       `json:"name"`
	Namespace string       `json:"namespace"`
	Addresses []netip.Addr `json:"addresses"`
}

// Gateway is the pod at the other end.
type Gateway struct {
	Pod       string `json:"pod,omitempty"`
	Version   string `json:"version,omitempty"`
	PublicKey string `json:"publicKey,omitempty"`
}

// Carrier is the path that WireGuard's packets take.
type Carrier struct {
	Name      string    `json:"name"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"`
	RTTMillis float64   `json:"rttMillis,omitempty"` // 0 before the first echo
	Redials   int       `json:"redials"`
	Error     string    `json:"error,omitempty"` // of the latest attempt
}

// WireGuard is the state of the device.
type WireGuard struct {
	Interface     string    `json:"interface"`
	MTU           int       `json:"mtu"`
	PublicKey     string    `json:"publicKey"`
	LastHandshake time.Time `json:"lastHandshake,omitzero"`
	ReceivedBytes int64     `json:"receivedBytes"`
	SentBytes     int64     `json:"sentBytes"`
}

// Route is a prefix of the plan: through the tunnel, or left to the route it had.
type Route struct {
	Prefix netip.Prefix `json:"prefix"`
	Kind   string       `json:"kind"` // "tunnel" or "throw"
	Reason string       `json:"reason,omitempty"`
}

// Virtual are the virtual addresses of a connection.
type Virtual struct {
	// Subnets are what they are taken from.
	Subnets []netip.Prefix `json:"subnets"`
	Twins   []Twin         `json:"twins"`
	// Hidden are the cluster's addresses that programs reach by virtual ones only: names that resolve into
	// them are answered with those.
	Hidden []netip.Prefix `json:"hidden,omitempty"`
	// Pool is how the pool stood a few seconds ago; nil where no twin is pooled.
	Pool *vip.Stats `json:"pool,omitempty"`
}

// Twin is a prefix that stands 1:1 for one of the cluster's.
type Twin struct {
	Real    netip.Prefix `json:"real"`
	Kind    string       `json:"kind"`
	Virtual netip.Prefix `json:"virtual,omitzero"`
	// Pooled says that programs use addresses out of the pool in place of Virtual's.
	Pooled bool `json:"pooled,omitempty"`
	// Hidden says that at least a part of Real is reached by virtual addresses only.
	Hidden bool `json:"hidden,omitempty"`
	// Reason says why there is no Virtual.
	Reason string `json:"reason,omitempty"`
}

// Reach is the proof that a subnet can be reached, or what is in the way.
type Reach struct {
	Prefix    netip.Prefix `json:"prefix"`
	Verdict   string       `json:"verdict"` // one of package reach's
	Detail    string       `json:"detail"`
	RTTMillis float64      `json:"rttMillis,omitempty"`
	At        time.Time    `json:"at"`
}

// DNS says which names go where.
type DNS struct {
	Server    []netip.Addr     `json:"server"`
	Domains   []string         `json:"domains"`
	Upstreams []netip.AddrPort `json:"upstreams"`
	// Ceded are domains of this connection's cluster that another connection on this host has, because
	// that one began earlier.
	Ceded    []Ceded `json:"ceded,omitempty"`
	Queries  uint64  `json:"queries"`
	Failures uint64  `json:"failures"`
}

// Ceded is a domain whose names another connection answers.
type Ceded struct {
	Domain     string `json:"domain"`
	Connection string `json:"connection"`
	Instead    string `json:"instead"` // the form of the names that lead to this connection's cluster
}
