package connection

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/helper"
)

// closeTimeout bounds saying goodbye to the cluster: the path to it may be what has failed.
const closeTimeout = 3 * time.Second

// close takes everything back, also from a connect that stopped half-way: the host through the
// helper, the Peer in the cluster, WireGuard and the resolver. why is nil or the reason.
func (s *Session) close(why error) {
	reason := "asked to quit"
	if why != nil && !errors.Is(why, errQuit) {
		reason = why.Error()
	}
	s.log.Info("closing", "reason", reason)
	s.setState(api.Closed, reason)
	s.publish()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() { s.restoreHost(ctx, why) })
	if s.peer != nil {
		work.Go(func() {
			if err := s.kube.DeletePeer(ctx, s.peer.Name, string(s.peer.UID)); err != nil {
				s.log.Warn("the Peer stays behind; the next connection takes it over", "peer", s.peer.Name, "err", err)
			}
		})
	}
	work.Wait()
	if s.tunnel != nil {
		s.tunnel.close()
	}
}

// restoreHost has the helper undo everything, and leaves a last status for `culvert status` where the
// connection had stood and did not end because it was asked to.
func (s *Session) restoreHost(ctx context.Context, why error) {
	defer close(s.restored)
	var last json.RawMessage
	if s.told.Load() && why != nil && !errors.Is(why, errQuit) {
		last, _ = json.Marshal(s.Status()) // of plain values: never fails
	}
	if err := s.helper.Close(ctx, last); err != nil && !errors.Is(err, helper.ErrHelperGone) {
		s.log.Error("restore the host", "err", err)
	}
}
