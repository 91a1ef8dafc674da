package connection

import (
	"context"
	"time"

	"github.com/culvert-dev/culvert/node/api"
)

// How often what nobody sends an event about is looked after, in ticks of a second.
const (
	pidsEvery  = 5  // ask the helper for its process ids
	applyEvery = 5  // try again what could not be applied
	poolEvery  = 5  // look how many virtual addresses are left
	askEvery   = 15 // ask the API server whether there is another gateway than one that answers nothing
	proveEvery = 10 // probe again while something does not answer
	proveAgain = 60 // probe again in any case: a firewall that changes tells nobody
)

// refresh brings up to date what nobody sends an event about.
func (s *Session) refresh(ctx context.Context) {
	s.ticks++
	if len(s.kube.Dialled()) > s.protects {
		s.log.Info("the API server was reached at another address", "addresses", s.kube.Dialled())
		s.followHost(ctx)
	}
	if (s.notices[noticeHost] != "" || s.notices[noticeHostWatch] != "") && s.ticks%applyEvery == 0 {
		s.followHost(ctx)
	}
	if s.notices[noticeAskTwins] != "" && s.ticks%applyEvery == 0 {
		s.askTwins()
	}
	if s.ticks%poolEvery == 0 {
		s.watchPool()
	}
	if s.state == api.Reconnecting && s.carrier.Connected && s.ticks%askEvery == 0 {
		s.kube.Reconnect()
	}
	if s.ticks%pidsEvery == 0 {
		s.ping(ctx)
	}
	if s.ticks%proveAgain == 0 || s.ticks%proveEvery == 0 && s.notices[noticeReach] != "" {
		s.prove()
	}
}

func (s *Session) ping(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if hello, err := s.helper.Ping(ctx); err == nil {
		s.hello = hello
	}
}

// WireGuard takes a session for dead 180 seconds after its handshake (Reject-After-Time in its paper;
// a new one is made after 120). A gateway that is new to us gets a few seconds.
const (
	rejectAfter = 180 * time.Second
	firstAnswer = 5 * time.Second
)

// mute reports whether the gateway has not answered for so long that no packet can pass.
func (s *Session) mute() bool {
	at, _, _ := s.tunnel.handshake()
	if at.IsZero() {
		return time.Since(s.began) > firstAnswer
	}
	return time.Since(at) > rejectAfter
}
