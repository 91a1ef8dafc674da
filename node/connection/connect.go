package connection

import (
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
	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// connect brings the connection up. Until everything is decided it only reads; what it has changed
// when it fails is taken back by close.
func (s *Session) connect(ctx context.Context, background *sync.WaitGroup) error {
	timeout := defaultTimeout
	if s.request.TimeoutSeconds > 0 {
		timeout = time.Duration(s.request.TimeoutSeconds) * time.Second
	}
	limited, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not connected after %s", timeout))
	defer cancel()
	background.Go(func() { // Ctrl-C also stops what waits for an answer
		select {
		case <-s.quit:
			cancel()
		case <-limited.Done():
		}
	})
	steps := []func(context.Context) error{
		s.learn,
		s.decide,
		func(limited context.Context) error { return s.open(limited, ctx, background) },
		s.awaitGateway,
		func(context.Context) error { return s.carry(ctx) },
		func(context.Context) error { return s.apply(ctx) },
		s.awaitHandshake,
	}
	for _, step := range steps {
		if err := step(limited); err != nil {
			if s.asked() {
				return errQuit
			}
			if errors.Is(err, context.DeadlineExceeded) {
				return errors.Join(context.Cause(limited), s.whyNotUp(ctx))
			}
			return err
		}
	}
	return nil
}

// learn reads what has to be known.
func (s *Session) learn(ctx context.Context) (err error) {
	s.kube, err = kube.Load(s.request.Kube)
	if err != nil {
		return err
	}
	s.kube.Log = s.log
	// A bad file is told before anything is asked of the network.
	if _, err := config.Layers(s.sources(nil)); err != nil {
		return err
	}
	s.channel.Progress("asking the API server %s", s.kube.Host())
	s.knowledge, err = gather(ctx, s.kube)
	if err != nil {
		return err
	}
	s.resolver = s.knowledge.resolver
	s.key, err = newKey()
	return err
}

func (s *Session) sources(team *v1alpha1.Policy) config.Sources {
	return config.Sources{
		Flags:       s.request.Flags,
		Environment: s.request.Environment,
		File:        s.request.ConfigFile,
		Kubeconfig:  s.kube.Extension,
		Policy:      team,
	}
}

// decide makes settings and plan, and refuses where they cannot be followed.
func (s *Session) decide(ctx context.Context) error {
	if err := s.merge(); err != nil {
		return err
	}
	var seed [16]byte
	rand.Read(seed[:]) // never fails
	v4, v6, err := policy.ProposeOverlay(seed, s.knowledge.facts, s.clusterPrefixes()...)
	if err != nil {
		return failure.New(failure.Conflict, err, "nothing was changed")
	}
	s.overlay = []netip.Prefix{v4, v6}
	s.addresses = []netip.Addr{v4.Addr(), v6.Addr()}
	if err := s.consent(ctx); err != nil {
		return err
	}
	s.replan()
	if open := s.plan.Unsettled(); len(open) > 0 {
		return &failure.Failure{Code: failure.Conflict, Text: s.plan.ConflictReport(), Raw: true}
	}
	s.warnings = s.plan.Warnings
	return nil
}

// merge makes the settings out of all layers, and the cluster's subnets.
func (s *Session) merge() error {
	layers, err := config.Layers(s.sources(s.usablePolicy()))
	if err != nil {
		return err
	}
	s.settings, _, err = policy.Merge(layers...)
	if err != nil {
		return failure.New(failure.Usage, err, "nothing was changed")
	}
	s.cluster, err = policy.ClusterFrom(s.knowledge.policy.Status, s.settings)
	if err != nil {
		return failure.New(failure.GatewayState, err, "")
	}
	if len(s.cluster.Services)+len(s.cluster.Pods) == 0 {
		return failure.Newf(failure.GatewayState, "the gateway has not found the cluster's subnets yet").
			WithHint("see `culvert gateway status`; or name them with --service-subnets and --pod-subnets")
	}
	return nil
}

// usablePolicy returns the team's Policy, or nil when the gateway found it wrong: a bad Policy is
// ignored as a whole.
func (s *Session) usablePolicy() *v1alpha1.Policy {
	if len(s.knowledge.policy.Status.Problems) > 0 {
		s.log.Warn("the team's Policy is ignored", "problems", s.knowledge.policy.Status.Problems)
		return nil
	}
	return s.knowledge.policy
}

func (s *Session) clusterPrefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, subnets := range [][]policy.Subnet{s.cluster.Services, s.cluster.Pods} {
		for _, subnet := range subnets {
			out = append(out, subnet.Prefix)
		}
	}
	return out
}

func (s *Session) replan() {
	s.plan = policy.NewPlan(s.planInput())
	for _, line := range s.plan.Trace {
		s.log.Info("plan", "trace", line)
	}
}

func (s *Session) planInput() policy.Input {
	return policy.Input{
		Settings:  s.settings,
		Cluster:   s.cluster,
		Facts:     s.knowledge.facts,
		Own:       policy.Own{Interface: s.iface, Table: uint32(hostnet.Table(s.iface))},
		Overlay:   s.overlay,
		Protected: protected(s.kube, s.resolver),
	}
}

// open asks the helper for the interface and the cluster for the Peer, at the same time.
func (s *Session) open(limited, ctx context.Context, background *sync.WaitGroup) error {
	s.channel.Progress("creating the interface and the Peer")
	type put struct {
		peer *v1alpha1.Peer
		err  error
	}
	wanted, answer := s.newPeer(), make(chan put, 1)
	background.Go(func() {
		peer, err := s.kube.PutPeer(limited, wanted)
		answer <- put{peer, err}
	})
	err := s.openHost(limited)
	created := <-answer
	s.peer = created.peer
	if err := errors.Join(err, created.err); err != nil {
		return err
	}
	name := s.peer.Name
	background.Go(func() {
		s.kube.WatchPeer(ctx, name, func(p *v1alpha1.Peer) { s.mail.send(func() { s.peerChanged(p) }) })
	})
	background.Go(func() {
		s.kube.WatchPolicy(ctx, func(p *v1alpha1.Policy) { s.mail.send(func() { s.policyChanged(p) }) })
	})
	s.serve(ctx, background)
	return nil
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
	ctx, cancel := context.WithTimeout(ctx, gatewayPatience)
	defer cancel()
	err := s.until(ctx, func() bool { return s.gateway != nil })
	if errors.Is(err, context.DeadlineExceeded) {
		ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
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

// dial has the carrier open streams to the current gateway's pod.
func (s *Session) dial(ctx context.Context) {
	pod, port := s.gateway.Pod, int(s.gateway.CarrierPort)
	open := func(ctx context.Context) (io.ReadWriteCloser, error) { return s.kube.DialPod(ctx, pod, port) }
	changed := func(state carrier.State) { s.mail.send(func() { s.carrier = state }) }
	failed := func(err error) { s.mail.send(func() { s.carrierFailed(err) }) }
	s.tunnel.carry(ctx, open, changed, failed)
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
	tick := time.NewTicker(handshakeTick)
	defer tick.Stop()
	for {
		if at, _, _ := s.tunnel.handshake(); !at.IsZero() {
			s.setState(api.Connected, "")
			s.publish()
			return nil
		}
		select {
		case event := <-s.mail.events:
			event()
		case <-tick.C:
		case <-s.quit:
			return errQuit
		case <-ctx.Done():
			return ctx.Err()
		}
		if s.ended != nil {
			return s.ended
		}
	}
}

// whyNotUp says what was missing when the time was over.
func (s *Session) whyNotUp(ctx context.Context) error {
	switch {
	case s.peer == nil || s.gateway == nil:
		return failure.Newf(failure.Unreachable, "the API server is too slow or does not answer")
	case !s.carrier.Connected:
		ctx, cancel := context.WithTimeout(ctx, closeTimeout)
		defer cancel()
		return errors.Join(s.carrier.Err, s.kube.WhyNoGateway(ctx))
	}
	return failure.Newf(failure.GatewayState, "the carrier stands, but the gateway does not answer WireGuard's handshake")
}
