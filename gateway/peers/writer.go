package peers

import (
	"context"
	"errors"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"golang.org/x/time/rate"

	"github.com/culvert-dev/culvert/gateway/status"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

const (
	// maxInFlight bounds the requests under way at once: enough to answer a thousand Peers within a
	// second after a restart, few enough for any API server.
	maxInFlight = 16
	// countsEvery is how often what keeps moving is brought up to date in one status.
	countsEvery = time.Minute
	// requestTimeout bounds one request.
	requestTimeout = 10 * time.Second
	// A failed request is tried again after a pause that doubles between these.
	firstRetry, lastRetry = 200 * time.Millisecond, 30 * time.Second
)

// writer carries out the requests that a plan asks for: at most one per Peer at a time, what a node
// waits for first. All methods belong to the goroutine of [Controller.Run]; only the requests
// themselves run beside it, and report on results.
type writer struct {
	api      dynamic.ResourceInterface
	log      *slog.Logger
	metrics  *metrics
	records  map[types.UID]*record
	todo     []job
	inFlight int
	results  chan outcome // buffered for all in flight, so that a request never waits to report
}

// record is what the writer remembers of one Peer.
type record struct {
	busy      bool
	removed   bool
	failures  int
	notBefore time.Time
	lastWrite time.Time
	written   *v1alpha1.PeerStatus // by the latest write, nil if that failed
	basis     string               // resourceVersion known when it was begun
	limit     *rate.Limiter        // for statuses that another writer keeps changing
}

// job is one request that may be due.
type job struct {
	Ref
	remove bool
	object v1alpha1.Peer // as the watch has shown it
	want   v1alpha1.PeerStatus
}

func (j job) kind() string {
	if j.remove {
		return "delete"
	}
	return "status"
}

// outcome is how a job ended.
type outcome struct {
	job
	err error
}

func newWriter(api dynamic.ResourceInterface, log *slog.Logger, m *metrics) *writer {
	return &writer{api: api, log: log, metrics: m, records: map[types.UID]*record{}, results: make(chan outcome, maxInFlight)}
}

// want replaces what is to be done by what plan asks for, given the objects it was made from.
func (w *writer) want(plan Plan, objects map[types.NamespacedName]v1alpha1.Peer) {
	current := make(map[types.UID]v1alpha1.Peer, len(objects))
	for _, p := range objects {
		current[p.UID] = p
	}
	var urgent, later []job
	for _, ref := range plan.Silent {
		later = append(later, job{Ref: ref, remove: true})
	}
	for _, a := range plan.Answers {
		j := job{Ref: a.Ref, object: current[a.UID], want: a.Status}
		r := w.records[a.UID]
		switch d := w.difference(j); {
		case d == matters, r != nil && r.busy: // what is under way may fail
			urgent = append(urgent, j)
		case d == counts:
			later = append(later, j)
		}
	}
	w.todo = append(urgent, later...)
	for uid, r := range w.records {
		if _, ok := current[uid]; !ok && !r.busy {
			delete(w.records, uid)
		}
	}
}

// believed returns p with the status we wrote last or are writing, if the watch has not shown that
// write yet. Without it a plan made in between would want the same again with another time of
// transition.
func (w *writer) believed(p v1alpha1.Peer) v1alpha1.Peer {
	if r := w.records[p.UID]; r != nil && r.written != nil && r.basis == p.ResourceVersion {
		p.Status = *r.written
	}
	return p
}

// difference compares what j wants with what is there.
func (w *writer) difference(j job) change {
	return compare(w.believed(j.object).Status, j.want)
}

// never is a time that does not come.
var never = time.Unix(1<<40, 0)

// dispatch starts the requests that are due and returns when it should be called again, if nothing
// reports before. A job stays until its request has succeeded or a new plan replaces it.
func (w *writer) dispatch(ctx context.Context) (next time.Time) {
	now, next := time.Now(), never
	left := w.todo[:0]
	for _, j := range w.todo {
		r := w.record(j.UID)
		if !r.busy && w.done(j, r) {
			continue
		}
		left = append(left, j)
		if r.busy || w.inFlight >= maxInFlight {
			continue // an outcome brings us back
		}
		if due := w.due(j, r, now); !due.After(now) {
			w.start(ctx, j, r)
		} else if due.Before(next) {
			next = due
		}
	}
	clear(w.todo[len(left):])
	w.todo = left
	return next
}

// done reports whether nothing is left to do for j.
func (w *writer) done(j job, r *record) bool {
	if j.remove {
		return r.removed
	}
	return w.difference(j) == same
}

func (w *writer) record(uid types.UID) *record {
	r := w.records[uid]
	if r == nil {
		r = &record{limit: rate.NewLimiter(1, 5)}
		w.records[uid] = r
	}
	return r
}

// due returns when j may be sent.
func (w *writer) due(j job, r *record, now time.Time) time.Time {
	due := r.notBefore
	if j.remove {
		return due
	}
	if w.difference(j) == counts {
		return latest(due, r.lastWrite.Add(countsEvery))
	}
	if r.limit.TokensAt(now) < 1 {
		return latest(due, now.Add(time.Second))
	}
	return due
}

// start sends j without waiting for the answer.
func (w *writer) start(ctx context.Context, j job, r *record) {
	r.busy = true
	if !j.remove {
		r.written, r.basis = &j.want, j.object.ResourceVersion
	}
	r.limit.Allow()
	w.inFlight++
	go func() { w.results <- outcome{j, w.send(ctx, j)} }()
}

func (w *writer) send(ctx context.Context, j job) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if !j.remove {
		_, err := status.Write(ctx, w.api, j.Name, j.UID, j.want)
		return err
	}
	err := w.api.Delete(ctx, j.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &j.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return errors.Join(status.ErrStale, err)
	}
	return err
}

// settle takes up the outcome of a request.
func (w *writer) settle(o outcome) {
	w.inFlight--
	w.metrics.wrote(o.kind(), o.err)
	r, now := w.record(o.UID), time.Now()
	r.busy = false
	if o.err != nil {
		r.written = nil
	}
	switch {
	case o.err == nil && o.remove:
		w.log.Info("Peer deleted: nothing was heard of it", "peer", o.Name, "uid", o.UID, "for", SilentAfter)
		r.removed = true
	case o.err == nil:
		r.failures, r.lastWrite = 0, now
	case errors.Is(o.err, status.ErrStale):
		r.notBefore = now.Add(time.Second) // by then the watch has told
	case errors.Is(o.err, context.Canceled):
	default:
		r.notBefore = now.Add(min(firstRetry<<min(r.failures, 10), lastRetry))
		r.failures++
		w.log.Warn("cannot change a Peer, trying again", "change", o.kind(), "peer", o.Name, "uid", o.UID, "err", o.err)
	}
}

// wait takes in the outcomes of all requests under way.
func (w *writer) wait() {
	for w.inFlight > 0 {
		w.settle(<-w.results)
	}
}
