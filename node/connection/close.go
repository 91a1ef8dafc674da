package connection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	work.Go(func() { s.deletePeer(ctx) })
	work.Wait()
	if s.tunnel != nil {
		s.tunnel.close()
	}
	s.closePool()
}

// unsureTimeout bounds looking for a Peer that may not even have been created.
const unsureTimeout = time.Second

// deletePeer removes what stands for this connection in the cluster.
func (s *Session) deletePeer(ctx context.Context) {
	var err error
	switch {
	case s.peer != nil:
		err = s.kube.DeletePeer(ctx, s.peer.Name, string(s.peer.UID))
	case s.unsure != nil:
		ctx, cancel := context.WithTimeout(ctx, unsureTimeout)
		defer cancel()
		err = s.kube.AbandonPeer(ctx, s.unsure)
	}
	if err != nil {
		s.log.Warn("the Peer may stay behind; the next connection takes it over", "err", err)
	}
}

// restoreHost has the helper undo everything, and leaves a last status for `culvert status` where the
// connection had stood and did not end because it was asked to. A helper that is gone has left it to
// its guard.
func (s *Session) restoreHost(ctx context.Context, why error) {
	defer close(s.restored)
	var last json.RawMessage
	if s.told.Load() && why != nil && !errors.Is(why, errQuit) {
		last, _ = json.Marshal(s.Status()) // of plain values: never fails
	}
	if err := s.helper.Close(ctx, last); err != nil && !errors.Is(err, helper.ErrHelperGone) {
		s.log.Error("restore the host", "err", err)
		s.restoreErr = fmt.Errorf("restore the host: %w", err)
	}
}
