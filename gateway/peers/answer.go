package peers

import (
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// answer returns the status p should have: served as req says, or refused with no.
func answer(p v1alpha1.Peer, req request, no *refusal, in Input) v1alpha1.PeerStatus {
	ready := metav1.Condition{Type: v1alpha1.PeerReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAccepted,
		Message: "served by pod " + in.Gateway.Pod}
	status := counted(p.Status, in.Traffic[p.UID])
	status.ObservedGeneration = p.Generation
	if no != nil {
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, no.reason, no.message
		status.Carrier = ""
	} else {
		status.Gateway = gatewayFor(req, in.Gateway)
	}
	status.Conditions = withReady(p.Status.Conditions, ready, p.Generation, in.Now)
	return status
}

// counted returns a status with nothing but what was seen of the Peer. What is not known to this pod
// stays as it was written before.
func counted(old v1alpha1.PeerStatus, t Traffic) v1alpha1.PeerStatus {
	status := v1alpha1.PeerStatus{
		LastHandshake: old.LastHandshake, Carrier: t.CarrierInUse,
		ReceivedBytes: max(old.ReceivedBytes, t.Received), SentBytes: max(old.SentBytes, t.Sent),
	}
	// The API keeps whole seconds.
	if heard := t.LastHandshake.Truncate(time.Second); !t.LastHandshake.IsZero() &&
		(old.LastHandshake == nil || heard.After(old.LastHandshake.Time)) {
		status.LastHandshake = &metav1.Time{Time: heard}
	}
	return status
}

// gatewayFor completes what the gateway says of itself with the addresses it has on this Peer's links.
func gatewayFor(req request, gateway v1alpha1.PeerGateway) *v1alpha1.PeerGateway {
	gateway.DNS = make([]string, len(req.addrs))
	for i, a := range req.addrs {
		gateway.DNS[i] = policy.GatewayAddr(a).String()
	}
	return &gateway
}

// withReady returns old with ready in place of its Ready condition, whose time of transition moves
// only when its status does. Conditions of other types, which nobody but a gateway of another
// version can have written, are dropped.
func withReady(old []metav1.Condition, ready metav1.Condition, generation int64, now time.Time) []metav1.Condition {
	ready.ObservedGeneration = generation
	ready.LastTransitionTime = metav1.Time{Time: now.Truncate(time.Second)}
	if before := meta.FindStatusCondition(old, ready.Type); before != nil && before.Status == ready.Status {
		ready.LastTransitionTime = before.LastTransitionTime
	}
	return []metav1.Condition{ready}
}

// change tells how a status differs from the one wanted.
type change int

const (
	same    change = iota
	counts         // only in what keeps moving: handshake and bytes
	matters        // in what the node or a person waits for
)

// compare classifies the step from have to want.
func compare(have, want v1alpha1.PeerStatus) change {
	if apiequality.Semantic.DeepEqual(have, want) {
		return same
	}
	have.LastHandshake, have.ReceivedBytes, have.SentBytes = want.LastHandshake, want.ReceivedBytes, want.SentBytes
	if apiequality.Semantic.DeepEqual(have, want) {
		return counts
	}
	return matters
}
