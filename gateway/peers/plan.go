package peers

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/culvert-dev/culvert/gateway/tunnel"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// Input is everything a [Plan] follows from.
type Input struct {
	// Peers as the API server has them, in any order. Those being deleted count as gone.
	Peers []v1alpha1.Peer
	// Gateway is what this pod says of itself in the status of the Peers it serves, without the
	// part that differs from Peer to Peer (DNS).
	Gateway v1alpha1.PeerGateway
	// Key is the gateway's public key, the parsed Gateway.PublicKey.
	Key wgtypes.Key
	// Reserved are prefixes no overlay and no twin may overlap: the cluster's subnets and what else is in use.
	Reserved []netip.Prefix
	// Traffic is what was observed of each Peer, by UID; nothing known is the zero value.
	Traffic map[types.UID]Traffic
	// MaxPeers is how many are served, shared fairly between users; 0 means no limit.
	MaxPeers int
	// Started is when this gateway began to serve and Now the present time.
	Started, Now time.Time
}

// Traffic is what the gateway saw of one Peer.
type Traffic struct {
	LastHandshake  time.Time // zero before the first
	Received, Sent int64     // bytes, over all gateways that served the Peer
	CarrierInUse   string    // "" while nothing arrives
}

// Plan is what to do. Its lists are sorted by age of the Peer.
type Plan struct {
	// Served are the Peers whose packets are accepted.
	Served []tunnel.Peer
	// Answers are the statuses that all Peers should have.
	Answers []Answer
	// Silent are Peers to delete.
	Silent []Ref
}

// Ref names one Peer object.
type Ref struct {
	Name string
	UID  types.UID
}

// Answer is the status one Peer should have.
type Answer struct {
	Ref
	Status v1alpha1.PeerStatus
}

const (
	// SilentAfter is how long a Peer may be without a handshake before it is deleted.
	SilentAfter = 7 * 24 * time.Hour
	// silentGrace is how long a new gateway waits before it takes silence for an answer: while there
	// was none, nobody could be heard.
	silentGrace = time.Hour
)

// NewPlan decides what follows from in. It is pure: equal inputs give equal plans.
func NewPlan(in Input) Plan {
	var plan Plan
	requests := map[types.UID]request{}
	refusals := map[types.UID]*refusal{}
	var heard, valid []v1alpha1.Peer
	claims := newClaims(in.Reserved)
	for _, p := range slices.SortedFunc(slices.Values(present(in.Peers)), byClaim) {
		if isSilent(p, in) {
			plan.Silent = append(plan.Silent, Ref{p.Name, p.UID})
			continue
		}
		heard = append(heard, p)
		req, no := parse(p.Spec, in.Key)
		if no == nil {
			no = claims.take(p.Name, req)
		}
		if requests[p.UID], refusals[p.UID] = req, no; no == nil {
			valid = append(valid, p)
		}
	}
	slices.SortFunc(heard, byAge)
	slices.SortFunc(valid, byAge)
	for uid := range beyondLimit(valid, in) {
		refusals[uid] = &refusal{v1alpha1.ReasonTooManyPeers, fmt.Sprintf("the gateway serves %d Peers already, which is its limit", in.MaxPeers)}
	}
	for _, p := range heard {
		ref, req, no := Ref{p.Name, p.UID}, requests[p.UID], refusals[p.UID]
		if no == nil {
			plan.Served = append(plan.Served, req.peer(ref))
		}
		plan.Answers = append(plan.Answers, Answer{ref, answer(p, req, no, in)})
	}
	return plan
}

// present returns those of peers that are not being deleted.
func present(peers []v1alpha1.Peer) []v1alpha1.Peer {
	return slices.DeleteFunc(slices.Clone(peers), func(p v1alpha1.Peer) bool { return p.DeletionTimestamp != nil })
}

// byAge compares two Peers: the older one first. The API keeps whole seconds, so of one second it is the one
// that the API server wrote first, as far as that can be told, then the name that decides.
func byAge(a, b v1alpha1.Peer) int {
	version, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	if err != nil {
		version = 0
	}
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), version, cmp.Compare(a.Name, b.Name))
}

// byClaim compares two Peers: who may claim keys and addresses first. Everybody can read the key of a
// connection and make a Peer with it in the same second, through an API server whose clock is behind, or out of
// an older one that was served with another key. So what is served as it is comes before what has changed
// since, and that before what is not served; only then age counts.
func byClaim(a, b v1alpha1.Peer) int {
	return cmp.Or(cmp.Compare(claimRank(a), claimRank(b)), byAge(a, b))
}

// claimRank is 0 for a Peer served as it is, by this gateway or the one before, 1 for one changed since, else 2.
func claimRank(p v1alpha1.Peer) int {
	ready := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.PeerReady)
	switch {
	case ready == nil, ready.Reason != v1alpha1.ReasonAccepted && ready.Reason != v1alpha1.ReasonGatewayShutdown:
		return 2
	case ready.ObservedGeneration != p.Generation:
		return 1
	}
	return 0
}

// isSilent reports whether nothing was heard of p for [SilentAfter].
func isSilent(p v1alpha1.Peer, in Input) bool {
	return in.Now.Sub(lastHeard(p, in)) >= SilentAfter && in.Now.Sub(in.Started) >= silentGrace
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// claims are the keys and links that Peers hold, in the order of byClaim.
type claims struct {
	keys     map[wgtypes.Key]string
	links    map[netip.Prefix]string
	reserved []netip.Prefix
}

func newClaims(reserved []netip.Prefix) *claims {
	return &claims{map[wgtypes.Key]string{}, map[netip.Prefix]string{}, reserved}
}

// take claims everything in req for the Peer called name, or nothing and says why.
func (c *claims) take(name string, req request) *refusal {
	if holder, ok := c.keys[req.key]; ok {
		return &refusal{v1alpha1.ReasonDuplicateKey, fmt.Sprintf("spec.publicKey is in use by Peer %s, which had it first", holder)}
	}
	for _, link := range req.pairs() {
		if holder, ok := c.links[link]; ok {
			return &refusal{v1alpha1.ReasonAddressConflict, fmt.Sprintf("%s is in use by Peer %s, which had it first", link, holder)}
		}
		if i := slices.IndexFunc(c.reserved, link.Overlaps); i >= 0 {
			return &refusal{v1alpha1.ReasonAddressConflict, fmt.Sprintf("%s overlaps %s, which is in use in the cluster", link, c.reserved[i])}
		}
	}
	for _, t := range req.twins {
		if i := slices.IndexFunc(c.reserved, t.Virtual.Overlaps); i >= 0 {
			return &refusal{v1alpha1.ReasonAddressConflict,
				fmt.Sprintf("spec.twins: %s, which stands for %s, overlaps %s, which is in use in the cluster", t.Virtual, t.Real, c.reserved[i])}
		}
	}
	c.keys[req.key] = name
	for _, link := range req.pairs() {
		c.links[link] = name
	}
	return nil
}
