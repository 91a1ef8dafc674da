package agents

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/internal/enrol"
	"github.com/culvert-dev/culvert/node/kube"
)

// keep enrols at an agent whose container runs, and again and again, until it is lost; it returns why.
func (r *run) keep(ctx context.Context, agent kube.Agent) error {
	w := r.watch(ctx, agent)
	defer w.close()
	r.update(func(s *State) { s.Phase, s.Doing = Enrolling, "" })
	err := r.await(w, agent)
	if err == nil {
		err = r.hold(w, agent)
	}
	if w.alive.Err() == nil {
		return err
	}
	if ctx.Err() == nil {
		r.ended, r.asked = true, kube.Agent{}
	}
	return context.Cause(w.alive)
}

// await enrols at an agent that may not listen yet.
func (r *run) await(w *watched, agent kube.Agent) error {
	for begin := time.Now(); ; {
		err := r.enrol(w.alive, agent, exchangePatience)
		if err == nil || w.alive.Err() != nil || !repeatable(err) || time.Since(begin) > answerPatience {
			return err
		}
		r.update(func(s *State) { s.Err = err })
		timer := time.NewTimer(pause(time.Since(begin), 0, false))
		select {
		case <-w.alive.Done():
		case <-r.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// hold enrols again from time to time, and at once when something may have changed, until the agent is lost.
func (r *run) hold(w *watched, agent kube.Agent) error {
	timer := time.NewTimer(jitter(refresh))
	defer timer.Stop()
	var silent time.Time // since when it does not answer; zero if it does
	for {
		select {
		case <-w.alive.Done():
			return context.Cause(w.alive)
		case r.unseen = <-w.trouble:
			r.update(func(s *State) { s.Err, s.Final = r.unseen, isFinal(r.unseen, true) })
			continue
		case <-w.restarted:
		case <-r.wake:
		case <-timer.C:
		}
		begin := time.Now()
		err := r.enrol(w.alive, agent, againPatience)
		if w.alive.Err() != nil {
			continue
		}
		if err == nil {
			silent = time.Time{}
			timer.Reset(jitter(refresh))
			continue
		}
		if silent.IsZero() {
			silent = begin
		}
		if r.lost(w.alive, agent, err, time.Since(silent)) {
			return err
		}
		final := isFinal(err, true)
		r.update(func(s *State) { s.Err, s.Final = err, final })
		timer.Reset(jitter(pause(time.Since(silent), 0, final)))
	}
}

// lost reports whether an agent that was up and now fails with err is to be given up. What does not answer is,
// if there is another pod to go to: where the API server does not answer, nothing better can be had.
func (r *run) lost(ctx context.Context, agent kube.Agent, err error, silent time.Duration) bool {
	switch {
	case isFinal(err, false): // of this node or what it asks for
		return false
	case errors.Is(err, kube.ErrPodGone) || reason(err) != "":
		return true
	case silent < silentPatience:
		return false
	}
	pod, err := r.look(ctx, "", append([]types.UID{agent.PodUID}, r.avoid...))
	return err == nil && pod.UID != agent.PodUID
}

// enrol asks the agent once, and takes in its answer.
func (r *run) enrol(ctx context.Context, agent kube.Agent, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	conn, err := r.config.Cluster.DialAgent(ctx, agent, agent.ControlPort)
	if err != nil {
		return err
	}
	defer conn.Close()
	request := r.request()
	r.asked = agent
	answer, err := enrol.Enrol(ctx, conn, request)
	if err != nil {
		return explain(agent, err)
	}
	if answer.PodUID != "" && answer.PodUID != string(agent.PodUID) { // a name may be another pod's by now
		return fmt.Errorf("another pod answers as %s/%s: %w", agent.Namespace, agent.Pod, kube.ErrPodGone)
	}
	r.enrolled(agent, request, answer)
	return nil
}

// enrolled takes in the answer of an agent that serves this node from now on.
func (r *run) enrolled(agent kube.Agent, request enrol.Request, answer enrol.Answer) {
	was := r.State()
	if was.Phase != Up || was.Key != answer.PublicKey {
		r.config.Log.Info("agent up", "workload", was.Workload, "pod", agent.Pod, "container", agent.Container, "version", answer.Version)
	}
	r.update(func(s *State) {
		s.Phase, s.Agent, s.Key, s.Twins = Up, agent, answer.PublicKey, request.Twins
		s.Err, s.Final, s.Attempts = r.unseen, isFinal(r.unseen, true), 0
	})
}

// watched is an agent's container under watch. Its goroutine ends with close.
type watched struct {
	alive     context.Context // ends when the container does, or its pod; its cause says why
	restarted chan struct{}   // capacity 1: the container came to run anew
	trouble   chan error      // capacity 1: the latest reason why nothing is seen, nil when it is again
	close     func()          // stops watching and waits
}

// watch follows the agent until close or the end of ctx.
func (r *run) watch(ctx context.Context, agent kube.Agent) *watched {
	alive, lose := context.WithCancelCause(ctx)
	w := &watched{alive: alive, restarted: make(chan struct{}, 1), trouble: make(chan error, 1)}
	var began time.Time
	changed := func(s *kube.AgentState) {
		if err := whyLost(agent, *s); err != nil {
			lose(err)
			return
		}
		if !began.IsZero() && s.Phase == kube.AgentRunning && !s.Since.Equal(began) {
			put(w.restarted, struct{}{})
		}
		if s.Phase == kube.AgentRunning {
			began = s.Since
		}
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		r.config.Cluster.WatchAgent(alive, agent, kube.Watch[kube.AgentState]{Changed: changed, Trouble: func(err error) { put(w.trouble, err) }})
	})
	w.close = func() { lose(nil); watching.Wait() }
	return w
}

// put makes v what a channel of capacity 1 holds. Its one sender calls it.
func put[T any](c chan T, v T) {
	select {
	case <-c:
	default:
	}
	c <- v
}

// whyLost says why an agent in this state is to be given up; nil if it is not. One in a pod that is being deleted
// works for a few seconds yet: the time to have another.
func whyLost(agent kube.Agent, s kube.AgentState) error {
	if err := agent.Failure(s); err != nil {
		return err
	}
	if s.PodLeaves {
		return fmt.Errorf("pod %s/%s is being deleted: %w", agent.Namespace, agent.Pod, kube.ErrPodGone)
	}
	return nil
}
