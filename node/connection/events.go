package connection

import (
	"errors"
	"fmt"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// errPeerDeleted ends a connection whose Peer somebody deleted: that is how an administrator cuts it.
var errPeerDeleted = errors.New("the Peer of this connection was deleted in the cluster; connect again if you may")

// peerChanged takes in a new state of the Peer; nil means that it is gone.
func (s *Session) peerChanged(p *v1alpha1.Peer) {
	if p == nil || p.UID != s.peer.UID {
		s.end(errPeerDeleted)
		return
	}
	if ready := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.PeerReady); refused(ready) {
		s.end(failure.Newf(failure.Refused, "the gateway refuses this connection: %s (%s)", ready.Message, ready.Reason))
		return
	}
	gateway := p.Status.Gateway
	if gateway == nil || p.Status.ObservedGeneration < p.Generation {
		return
	}
	s.twinsKnown(p.Spec.Twins)
	if s.gateway != nil && *gatewayIdentity(s.gateway) == *gatewayIdentity(gateway) {
		return
	}
	before := s.gateway
	s.gateway = gateway
	s.generation++
	if before != nil && s.tunnel != nil {
		s.followGateway()
	}
}

// refused reports whether a Ready condition says no for a reason that waiting does not cure.
func refused(ready *metav1.Condition) bool {
	if ready == nil || ready.Status != metav1.ConditionFalse {
		return false
	}
	switch ready.Reason {
	case v1alpha1.ReasonInvalidSpec, v1alpha1.ReasonDuplicateKey, v1alpha1.ReasonAddressConflict, v1alpha1.ReasonTooManyPeers:
		return true
	}
	return false
}

// identity is what makes one gateway process different from another.
type identity struct {
	pod, uid, key string
	port          int32
}

func gatewayIdentity(g *v1alpha1.PeerGateway) *identity {
	return &identity{g.Pod, g.PodUID, g.PublicKey, g.CarrierPort}
}

// followGateway moves the tunnel to the gateway that now serves the Peer. It knows nothing of the TCP
// connections through the one before, so those end here.
func (s *Session) followGateway() {
	s.log.Info("gateway changed", "pod", s.gateway.Pod)
	if err := s.setPeer(); err != nil {
		s.end(err)
		return
	}
	s.dial(s.ctx)
	s.setDNS()
	s.resetEstablished(s.ctx)
}

// setPeer makes the current gateway WireGuard's peer, with what the plan lets through.
func (s *Session) setPeer() error {
	key, err := wgtypes.ParseKey(s.gateway.PublicKey)
	if err != nil {
		return failure.New(failure.GatewayState, fmt.Errorf("the gateway published a bad key: %w", err), "")
	}
	return s.tunnel.setPeer(key, s.plan.AllowedIPs)
}
