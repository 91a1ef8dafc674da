package agents

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/internal/enrol"
	"github.com/culvert-dev/culvert/node/kube"
)

// run is the state of one Keeper.Run, whose goroutine owns it.
type run struct {
	*Keeper
	pod     types.UID   // of the agent in use, to be kept; "" for none
	avoid   []types.UID // pods where an agent could not be had
	again   bool        // the pod in hand was among them: all others have failed as well
	spent   int         // agents in a row that could not be had, or not for long, in pods that are there
	ended   bool        // the container in hand has ended, or its pod
	unseen  error       // why its container cannot be watched
	trouble time.Time   // when the last agent was lost, or Run began
	asked   kube.Agent  // that was asked last and may serve this node; zero for none
}

// Run keeps an agent until ctx ends; then it says goodbye to it, for which it takes two seconds at most. It is
// called once.
func (k *Keeper) Run(ctx context.Context) {
	r := &run{Keeper: k, trouble: time.Now()}
	for ctx.Err() == nil {
		if err := r.attempt(ctx); ctx.Err() == nil {
			r.failed(ctx, err)
		}
	}
	r.leave(ctx)
}

// attempt gets an agent and returns when there is none any more, with the reason.
func (r *run) attempt(ctx context.Context) error {
	r.update(func(s *State) { s.Phase = Seeking })
	pod, err := r.look(ctx, r.pod, r.avoid)
	if err != nil {
		return err
	}
	if r.again = slices.Contains(r.avoid, pod.UID); r.again {
		r.avoid = nil // the others' turn again
	}
	r.ended, r.unseen = false, nil
	agent, err := r.place(ctx, pod)
	if err == nil {
		err = r.keep(ctx, agent)
	}
	r.judge(pod.UID, err)
	return err
}

// judge draws from how an agent was lost, or could not be had, what pod to take next.
func (r *run) judge(pod types.UID, err error) {
	s := r.State()
	lasted := s.Phase == Up && time.Since(s.Since) >= settled
	if s.Phase == Up {
		r.pod = pod
	}
	if lasted {
		r.avoid, r.again, r.spent = nil, false, 0
	}
	switch {
	case errors.Is(err, kube.ErrPodGone):
		r.pod, r.asked = "", kube.Agent{}
	case lasted && r.ended: // as agents do: the pod is as good as before
	case blamesPod(err):
		r.avoid = append(r.avoid, pod)
		r.spent++
	}
}

// look finds the workload and a pod of it.
func (r *run) look(ctx context.Context, keep types.UID, avoid []types.UID) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookPatience, fmt.Errorf("no answer within %v", lookPatience))
	defer cancel()
	w, err := r.config.Cluster.Resolve(ctx, r.config.Workload, r.config.Namespace)
	if err != nil {
		return nil, err
	}
	if w.Workload != r.State().Workload {
		r.update(func(s *State) { s.Workload = w.Workload })
	}
	return r.config.Cluster.PickPod(ctx, w, keep, avoid...)
}

// place has an agent run in the pod.
func (r *run) place(ctx context.Context, pod *corev1.Pod) (kube.Agent, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, placePatience, fmt.Errorf("not running after %v", placePatience))
	defer cancel()
	r.update(func(s *State) { s.Phase, s.Doing = Placing, "" })
	return r.config.Cluster.PlaceAgent(ctx, pod, func(doing string) {
		r.update(func(s *State) { s.Doing = doing })
	})
}

// failed takes in why there is no agent and waits until it is time for another attempt: not at all after the loss
// of one that has done well.
func (r *run) failed(ctx context.Context, err error) {
	final := isFinal(err, r.again)
	was := r.State()
	if was.Phase == Up {
		r.config.Log.Info("agent lost", "workload", was.Workload, "pod", was.Agent.Pod, "err", err)
		r.trouble = time.Now()
		if r.spent == 0 && !final {
			r.update(func(s *State) { s.Phase, s.Err = Seeking, err })
			return
		}
	}
	r.update(func(s *State) {
		s.Phase, s.Doing, s.Err, s.Final, s.Attempts = Waiting, "", err, final, s.Attempts+1
	})
	timer := time.NewTimer(jitter(pause(time.Since(r.trouble), r.spent, final)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-r.wake:
	case <-timer.C:
	}
}

// leave says goodbye to the agent that may still serve this node.
func (r *run) leave(ctx context.Context) {
	if r.asked != (kube.Agent{}) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), byePatience)
		defer cancel()
		if err := r.bye(ctx); err != nil { // it forgets a silent node by itself
			r.config.Log.Debug("no goodbye to the agent", "pod", r.asked.Pod, "err", err)
		}
	}
	r.update(func(s *State) { s.Phase, s.Doing = Closed, "" })
}

func (r *run) bye(ctx context.Context) error {
	conn, err := r.config.Cluster.DialAgent(ctx, r.asked, r.asked.ControlPort)
	if err != nil {
		return err
	}
	defer conn.Close()
	return enrol.Bye(ctx, conn, r.request())
}
