package helper

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
)

// maxPolicies bounds an answer, so that it fits into a message. A host that is a VPN's gateway itself
// has thousands.
const maxPolicies = 2048

// ipsecWatch is a routefacts.Watcher.
type ipsecWatch interface {
	Changes() <-chan struct{}
	Run(context.Context) error
}

// ipsecTold is what the user half was told of the host's IPsec policies, and who watches them. It
// belongs to the session's goroutine.
type ipsecTold struct {
	last    IPsec
	changes <-chan struct{} // nil until the policies were asked for
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// stop ends the watch and waits for it.
func (i *ipsecTold) stop() {
	if i.cancel != nil {
		i.cancel()
	}
	i.running.Wait()
}

// handleIPsec reads the policies; the first time it begins to watch them, before it reads.
func (s *session) handleIPsec(ctx context.Context) (*IPsec, error) {
	if s.ipsec.cancel == nil {
		s.startIPsecWatch()
	}
	now, err := s.currentIPsec(ctx)
	if err != nil {
		return nil, err
	}
	s.ipsec.last = now
	return &now, nil
}

// currentIPsec reads the policies, as many as fit.
func (s *session) currentIPsec(ctx context.Context) (IPsec, error) {
	policies, warnings, err := s.readIPsec(ctx)
	if err != nil {
		return IPsec{}, err
	}
	if n := len(policies); n > maxPolicies {
		policies = policies[:maxPolicies:maxPolicies]
		warnings = append(warnings, fmt.Sprintf("this host has %d IPsec policies, of which the first %d are looked at", n, maxPolicies))
	}
	return IPsec{Policies: policies, Warnings: warnings}, nil
}

// startIPsecWatch has the kernel tell of changes; a kernel without IPsec has none.
func (s *session) startIPsecWatch() {
	watch, err := s.watchIPsec()
	if err != nil {
		s.ipsec.cancel = func() {}
		if !errors.Is(err, errors.ErrUnsupported) {
			s.Log.Warn("changes of IPsec policies will not be noticed", "err", err)
		}
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.ipsec.changes, s.ipsec.cancel = watch.Changes(), cancel
	s.ipsec.running.Go(func() { // ends with ctx; stop waits
		if err := watch.Run(ctx); err != nil {
			s.Log.Warn("changes of IPsec policies are not noticed any more", "err", err)
		}
	})
}

// noticeIPsec tells the user half if the policies are not what it was told last.
func (s *session) noticeIPsec(ctx context.Context) {
	now, err := s.currentIPsec(ctx)
	if err != nil {
		s.Log.Warn("the changed IPsec policies cannot be read", "err", err)
		return
	}
	if reflect.DeepEqual(now, s.ipsec.last) {
		return
	}
	s.ipsec.last = now
	s.Log.Info("IPsec policies have changed", "policies", len(now.Policies))
	s.tell(Event{IPsecChanged: true})
}
