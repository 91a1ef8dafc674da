package peers

import (
	"context"
	"errors"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/gateway/status"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// FarewellTimeout bounds how long a gateway that stops takes to say so.
const FarewellTimeout = 700 * time.Millisecond

// farewell tells the Peers served that this gateway is gone, so that their nodes wait for the next
// one instead of dialling a pod that ends. A Peer that another gateway has taken up is left alone.
// What cannot be written in time is left: the next gateway overwrites it.
func (c *Controller) farewell() {
	ctx, cancel := context.WithTimeout(context.Background(), FarewellTimeout)
	defer cancel()
	var group sync.WaitGroup
	slots := make(chan struct{}, maxInFlight)
	for _, a := range c.plan.Answers {
		if a.Status.Gateway == nil {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		group.Go(func() {
			defer func() { <-slots }()
			_, err := status.Write(ctx, c.writer.api, a.Name, a.UID, departed(a.Status, time.Now()),
				status.Test{Path: "/status/gateway/podUID", Value: c.cfg.Gateway.PodUID})
			if err != nil && !errors.Is(err, status.ErrStale) {
				c.log.Debug("could not say farewell", "peer", a.Name, "err", err)
			}
		})
	}
	group.Wait()
}

// departed is s after its gateway has gone.
func departed(s v1alpha1.PeerStatus, now time.Time) v1alpha1.PeerStatus {
	pod := s.Gateway.Pod
	s.Gateway, s.Carrier = nil, ""
	s.Conditions = withReady(s.Conditions, metav1.Condition{Type: v1alpha1.PeerReady, Status: metav1.ConditionFalse,
		Reason: v1alpha1.ReasonGatewayShutdown, Message: "pod " + pod + " has stopped, the next one takes over"}, s.ObservedGeneration, now)
	return s
}
