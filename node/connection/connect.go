package connection

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/config"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// connect brings the connection up. Until everything is decided it only reads; what it has changed
// when it fails is taken back by close.
func (s *Session) connect(ctx context.Context, background *sync.WaitGroup) error {
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.patience = time.AfterFunc(s.timeout(), func() { cancel(errTooLong) })
	defer s.patience.Stop()
	background.Go(func() { // Ctrl-C and the helper's end also stop what waits for an answer
		select {
		case <-s.quit:
			cancel(errQuit)
		case <-s.helper.Done():
			cancel(errHelperGone())
		case <-limited.Done():
		}
	})
	steps := []func(context.Context) error{
		s.learn,
		s.decide,
		func(limited context.Context) error { return s.open(limited, ctx, background) },
		s.awaitGateway,
		func(context.Context) error { return s.carry(ctx) },
		func(context.Context) error { s.inForce = s.plan; s.translate(); return s.apply(ctx) },
		s.awaitHandshake,
	}
	for _, step := range steps {
		if err := step(limited); err != nil {
			return s.whyNot(ctx, limited, err)
		}
	}
	return nil
}

// errTooLong is why connecting is given up when its time is over.
var errTooLong = errors.New("it took too long")

// timeout bounds connecting, but not the time that a person takes to answer.
func (s *Session) timeout() time.Duration {
	if s.request.TimeoutSeconds > 0 {
		return time.Duration(s.request.TimeoutSeconds) * time.Second
	}
	return defaultTimeout
}

// whyNot returns why connecting failed: what ended it all, else err, with which a step failed.
func (s *Session) whyNot(ctx, limited context.Context, err error) error {
	cause := context.Cause(limited)
	switch {
	case s.asked() || ctx.Err() != nil:
		return errQuit
	case errors.Is(err, helper.ErrHelperGone) || errors.Is(cause, helper.ErrHelperGone):
		return errHelperGone()
	case !errors.Is(cause, errTooLong):
		return err
	}
	why := failure.Of(s.whyNotUp(ctx))
	return failure.New(why.Code, fmt.Errorf("not connected after %s: %w", s.timeout(), why), why.Hint)
}

// learn reads what has to be known.
func (s *Session) learn(ctx context.Context) (err error) {
	if err := s.checkOwn(); err != nil {
		return err
	}
	s.kube, err = kube.Load(s.request.Kube)
	if err != nil {
		return err
	}
	// A bad extension, too, is told before anything is asked of the network.
	if _, err := config.Layers(s.sources(nil)); err != nil {
		return err
	}
	s.channel.Progress("asking the API server %s", s.kube.Host())
	s.knowledge, err = gather(ctx, s.kube, s.helper)
	if err != nil {
		return err
	}
	s.resolver = s.knowledge.resolver
	s.followed = s.usablePolicy(s.knowledge.policy)
	s.key, err = newKey()
	return err
}

// decide makes settings and plan, and refuses where they cannot be followed.
func (s *Session) decide(ctx context.Context) error {
	var seed [16]byte
	rand.Read(seed[:]) // never fails
	if err := s.settle(seed); err != nil {
		return err
	}
	s.noticeNarrowed()
	for _, p := range s.overlay {
		s.addresses = append(s.addresses, p.Addr())
	}
	if err := s.consent(ctx); err != nil {
		return err
	}
	s.setPlan(policy.NewPlan(s.planInput(s.settings, s.cluster)))
	if open := s.plan.Unsettled(); len(open) > 0 {
		return &failure.Failure{Code: failure.Conflict, Text: s.plan.ConflictReport(), Raw: true}
	}
	return nil
}

// settle makes the settings, proposes addresses for the tunnel out of seed, unless it has some, and chooses
// the virtual subnets.
func (s *Session) settle(seed [16]byte) (err error) {
	s.settings, s.cluster, err = s.merge(s.followed)
	if err != nil {
		return err
	}
	if err := refusedByPolicy(s.settings); err != nil {
		return err
	}
	if s.overlay == nil {
		v4, v6, err := policy.ProposeOverlay(seed, s.knowledge.facts, s.clusterPrefixes()...)
		if err != nil {
			return failure.New(failure.Conflict, err, "nothing was changed")
		}
		s.overlay = []netip.Prefix{v4, v6}
	}
	return s.chooseVirtual()
}

// open asks the helper for the interface and the cluster for the Peer, at the same time.
func (s *Session) open(limited, ctx context.Context, background *sync.WaitGroup) error {
	s.channel.Progress("creating the interface and the Peer")
	type put struct {
		peer *v1alpha1.Peer
		err  error
	}
	s.keepTwins()
	wanted, answer := s.newPeer(), make(chan put, 1)
	s.virtual.asked = wanted.Spec.Twins
	background.Go(func() {
		peer, err := s.kube.PutPeer(limited, wanted)
		answer <- put{peer, err}
	})
	err := s.openHost(limited)
	created := <-answer
	s.peer = created.peer
	if created.err != nil && mayBeDone(created.err) {
		s.unsure = wanted
	}
	if err := cmp.Or(err, created.err); err != nil {
		return err
	}
	s.watch(ctx, background)
	s.serve(ctx, background)
	s.watchHost(ctx, background)
	return nil
}

// mayBeDone reports whether a request that failed with err may have been carried out all the same,
// because its answer did not come.
func mayBeDone(err error) bool {
	return errors.Is(err, context.Canceled) || failure.Of(err).Code == failure.Unreachable
}

// watch follows the Peer and the team's Policy from what is known of them.
func (s *Session) watch(ctx context.Context, background *sync.WaitGroup) {
	peer, team := s.peer, s.knowledge.policy
	background.Go(func() {
		s.kube.WatchPeer(ctx, peer, kube.Watch[v1alpha1.Peer]{
			Changed: func(p *v1alpha1.Peer) { s.mail.send(ctx, func() { s.peerChanged(p) }) },
			Trouble: func(err error) { s.mail.send(ctx, func() { s.notice(noticePeerWatch, err) }) },
		})
	})
	background.Go(func() {
		s.kube.WatchPolicy(ctx, team, kube.Watch[v1alpha1.Policy]{
			Changed: func(p *v1alpha1.Policy) { s.mail.send(ctx, func() { s.policyChanged(p) }) },
			Trouble: func(err error) { s.mail.send(ctx, func() { s.notice(noticeTeamWatch, err) }) },
		})
	})
}

// newPeer returns the Peer that asks the gateway for this connection.
func (s *Session) newPeer() *v1alpha1.Peer {
	peer := &v1alpha1.Peer{
		ObjectMeta: metav1.ObjectMeta{
			Name:      peerName(s.knowledge.user, hostname(), machineID(), s.request.Name),
			Namespace: s.kube.Namespace(),
		},
		Spec: v1alpha1.PeerSpec{
			User:      s.knowledge.user,
			PublicKey: s.key.PublicKey().String(),
			Twins:     peerTwins(s.plan),
			Client:    clientInfo(),
		},
	}
	for _, a := range s.addresses {
		peer.Spec.Addresses = append(peer.Spec.Addresses, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return peer
}

// gatewayPatience is how long a Peer may stay unanswered before somebody looks why.
const gatewayPatience = 10 * time.Second

// awaitGateway waits until a gateway has taken up the Peer.
func (s *Session) awaitGateway(ctx context.Context) error {
	s.channel.Progress("waiting for the gateway")
	patient, cancel := context.WithTimeout(ctx, gatewayPatience)
	defer cancel()
	err := s.until(patient, 0, func() bool { return s.gateway != nil })
	if errors.Is(err, context.DeadlineExceeded) {
		ask, cancel := context.WithTimeout(ctx, closeTimeout)
		defer cancel()
		return s.kube.WhyNoGateway(ask)
	}
	if err != nil {
		return err
	}
	if err := version.Compatible(version.Version, s.gateway.Version); err != nil {
		return incompatible(err)
	}
	return nil
}

func incompatible(err error) error {
	return failure.New(failure.GatewayState, fmt.Errorf("this culvert and the cluster's gateway do not fit: %w", err),
		"install the matching culvert, or have an administrator run `culvert gateway upgrade`")
}

// carry starts the carrier to the gateway's pod.
func (s *Session) carry(ctx context.Context) error {
	s.channel.Progress("opening the carrier to pod %s", s.gateway.Pod)
	if err := s.setPeer(); err != nil {
		return err
	}
	s.dial(ctx)
	return nil
}

// dial has the carrier open streams to the current gateway's pod. What an earlier carrier still says is
// not listened to.
func (s *Session) dial(ctx context.Context) {
	pod, port := s.gateway.Pod, int(s.gateway.CarrierPort)
	s.dials++
	id := s.dials
	open := func(ctx context.Context) (io.ReadWriteCloser, error) { return s.kube.DialPod(ctx, pod, port) }
	mine := func(f func()) func() {
		return func() {
			if id == s.dials {
				f()
			}
		}
	}
	changed := func(ctx context.Context, state carrier.State) {
		s.mail.send(ctx, mine(func() { s.carrierChanged(state) }))
	}
	failed := func(ctx context.Context, err error) {
		s.mail.send(ctx, mine(func() { s.carrierFailed(err) }))
	}
	s.carrier, s.began = carrier.State{}, time.Now()
	s.tunnel.carry(ctx, open, changed, failed)
}

// carrierChanged takes in a new state of the carrier. When it has found a way again after an outage,
// whatever else goes to the API server is to take that way too, now: the Peer may be gone or another
// gateway may serve it.
func (s *Session) carrierChanged(state carrier.State) {
	again := state.Connected && (state.Redials > s.carrier.Redials || s.carrier.Err != nil && !s.carrier.Connected)
	s.carrier = state
	if again {
		s.kube.Reconnect()
	}
}

// carrierFailed ends the connection: the carrier retries whatever can be retried.
func (s *Session) carrierFailed(err error) {
	if errors.Is(err, carrier.ErrIncompatible) {
		err = incompatible(err)
	}
	s.end(err)
}

// handshakeTick is how often the device is asked for its first handshake.
const handshakeTick = 10 * time.Millisecond

// awaitHandshake waits for the first WireGuard handshake: from then on packets flow.
func (s *Session) awaitHandshake(ctx context.Context) error {
	err := s.until(ctx, handshakeTick, func() bool {
		at, _, _ := s.tunnel.handshake()
		return !at.IsZero()
	})
	if err != nil {
		return err
	}
	s.setState(api.Connected, "")
	s.publish()
	s.prove()
	return nil
}

// whyNotUp says what was missing when the time was over.
func (s *Session) whyNotUp(ctx context.Context) error {
	switch {
	case s.peer == nil || s.gateway == nil:
		return failure.Newf(failure.Unreachable, "the API server %s is too slow or does not answer", s.kube.Host()).
			WithHint("is the VPN or network that leads to it up? `kubectl version` must work with the same kubeconfig")
	case !s.carrier.Connected && s.carrier.Err != nil:
		return failure.New(max(failure.Of(s.carrier.Err).Code, failure.General), fmt.Errorf("no carrier to the gateway: %w", s.carrier.Err),
			failure.Of(s.carrier.Err).Hint)
	case !s.carrier.Connected:
		ctx, cancel := context.WithTimeout(ctx, closeTimeout)
		defer cancel()
		return s.kube.WhyNoGateway(ctx)
	}
	return failure.Newf(failure.GatewayState, "the carrier stands, but the gateway does not answer WireGuard's handshake").
		WithHint("see `culvert gateway status` and the gateway's log")
}
