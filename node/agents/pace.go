package agents

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/culvert-dev/culvert/internal/enrol"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
)

// Times that a Keeper waits. An agent that is lost is to be replaced within ten seconds where the cluster has
// another pod.
const (
	lookPatience     = 10 * time.Second // for workload and pods
	placePatience    = 30 * time.Second // for a container to run, its image pulled
	answerPatience   = 10 * time.Second // for an agent to listen and answer
	exchangePatience = 5 * time.Second  // for one answer
	byePatience      = 2 * time.Second  // for the goodbye

	// For an agent that was up: for one answer, and until another pod is looked for.
	againPatience  = 3 * time.Second
	silentPatience = 6 * time.Second

	// refresh is the time between two enrolments at an agent that is up, which leaves after ten minutes of silence.
	refresh = 2 * time.Minute
	// settled is how long an agent must have been up for its loss to be no failure to have one.
	settled = 30 * time.Second

	minPause   = 200 * time.Millisecond
	maxPause   = 30 * time.Second
	finalPause = time.Minute
	// maxSpentPause is for agents that end one after another.
	maxSpentPause = 5 * time.Minute
)

// pause is how long to wait after a failure when there has been trouble for so long: a tenth of it. So what
// comes back is found after little more than the time for which it was away, at any scale. But spent, the
// containers in a row that came to nothing, doubles it: each stays in its pod's specification for good.
func pause(trouble time.Duration, spent int, final bool) time.Duration {
	if final {
		return finalPause
	}
	p := min(max(trouble/10, minPause), maxPause)
	if spent > 1 {
		p = max(p, min(time.Second<<min(spent-1, 20), maxSpentPause))
	}
	return p
}

// jitter returns between half of d and d, so that the nodes that lost one pod do not all come at once.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1)
}

// isFinal reports whether waiting alone will hardly cure err. again says that the pod has failed before: what is
// wrong with one agent may be right with that of another pod.
func isFinal(err error, again bool) bool {
	switch reason(err) {
	case enrol.Invalid, enrol.Malformed:
		return true
	case enrol.Incompatible:
		return again
	case "":
		f := failure.Of(err)
		return f != nil && (f.Code == failure.Usage || f.Code == failure.Permission || f.Code == failure.Refused)
	}
	return false
}

// blamesPod reports whether err, with which an agent could not be had, may be right with another pod.
func blamesPod(err error) bool {
	return !errors.Is(err, kube.ErrPodGone) && !isFinal(err, false)
}

// repeatable reports whether an agent that has failed with err may answer better in a moment: it does not listen
// yet, or its container is about to end, of which the watch will tell.
func repeatable(err error) bool {
	switch reason(err) {
	case enrol.Stopping, enrol.Failed:
		return true
	case "":
		return !isFinal(err, false) && !errors.Is(err, kube.ErrPodGone)
	}
	return false
}

// reason is that of an agent's refusal, "" for any other error.
func reason(err error) string {
	var no *enrol.Refusal
	if errors.As(err, &no) {
		return no.Reason
	}
	return ""
}

// explain turns what came of an enrolment into a failure with a remedy.
func explain(a kube.Agent, err error) error {
	doing := fmt.Errorf("agent in pod %s/%s: %w", a.Namespace, a.Pod, err)
	switch reason(err) {
	case enrol.Incompatible:
		return failure.New(failure.GatewayState, doing,
			"another user's culvert of another version may have put it there; use the same version, or another workload until that agent has left")
	case enrol.Conflict:
		return failure.New(failure.General, doing,
			"it forgets a node that is silent for ten minutes; connecting anew takes other addresses")
	case enrol.TooManyNodes:
		return failure.New(failure.General, doing, "it forgets nodes that are silent for ten minutes")
	}
	return doing
}
