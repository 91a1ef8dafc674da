package agents

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/internal/enrol"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePod is a pod and the agent in it. Its cluster's mutex guards it.
type fakePod struct {
	name     string
	unready  bool
	leaves   bool
	gone     bool
	state    kube.AgentState // of the latest container; the zero Phase before the first
	trouble  error           // why it cannot be watched
	key      wgtypes.Key     // of the agent
	refusal  *enrol.Refusal  // its answer, if not nil
	podUID   string          // what it says, "" for the pod's own
	deaf     bool            // nobody listens
	silent   bool            // requests are taken and not answered
	requests []enrol.Request // that were taken
	placing  func() error    // what comes of placing, beside a container that runs
	placed   int             // containers
}

func (p *fakePod) uid() types.UID { return types.UID("uid-" + p.name) }

// fakeCluster is a scripted Cluster.
type fakeCluster struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and replaced at every change
	pods      []*fakePod
	unknown   error  // that Resolve answers
	outage    error  // that all requests answer
	hang      string // the request that does not return before its context ends
	dialled   int
	picked    []types.UID // what was avoided at the latest pick
	following int         // watches
}

func newCluster(pods ...string) *fakeCluster {
	c := &fakeCluster{changed: make(chan struct{})}
	for i, name := range pods {
		c.pods = append(c.pods, &fakePod{name: name, key: wgtypes.Key{byte(i + 1)}})
	}
	return c
}

// set changes the cluster.
func (c *fakeCluster) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	close(c.changed)
	c.changed = make(chan struct{})
}

// get looks into the cluster.
func get[T any](c *fakeCluster, look func() T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return look()
}

// ask is what all requests do first.
func (c *fakeCluster) ask(ctx context.Context, request string) error {
	for {
		c.mu.Lock()
		hangs, outage, changed := c.hang == request, c.outage, c.changed
		c.mu.Unlock()
		if !hangs {
			return outage
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", request, context.Cause(ctx))
		}
	}
}

func (c *fakeCluster) Resolve(ctx context.Context, w policy.Workload, namespace string) (*kube.Workload, error) {
	if err := c.ask(ctx, "resolve"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unknown != nil {
		return nil, c.unknown
	}
	return &kube.Workload{Workload: policy.Workload{Namespace: namespace, Kind: policy.KindDeployment, Name: w.Name}}, nil
}

func (c *fakeCluster) PickPod(ctx context.Context, _ *kube.Workload, keep types.UID, avoid ...types.UID) (*corev1.Pod, error) {
	if err := c.ask(ctx, "pick"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.picked = avoid
	var best *fakePod
	rank := func(p *fakePod) int {
		switch {
		case slices.Contains(avoid, p.uid()):
			return 2
		case p.uid() == keep:
			return 0
		}
		return 1
	}
	for _, p := range c.pods {
		if !p.unready && !p.leaves && !p.gone && (best == nil || rank(p) < rank(best)) {
			best = p
		}
	}
	if best == nil {
		return nil, failure.Newf(failure.General, "no ready pod").WithHint("wait")
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: best.name, UID: best.uid()}}, nil
}

func (c *fakeCluster) pod(name string) *fakePod {
	return c.pods[slices.IndexFunc(c.pods, func(p *fakePod) bool { return p.name == name })]
}

func (c *fakeCluster) PlaceAgent(ctx context.Context, pod *corev1.Pod, say func(string)) (kube.Agent, error) {
	say("adding a container to " + pod.Name)
	if err := c.ask(ctx, "place"); err != nil {
		return kube.Agent{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pod(pod.Name)
	if p.state.Phase != kube.AgentRunning {
		p.placed++
		p.state = kube.AgentState{Phase: kube.AgentRunning, Since: time.Now()}
	}
	var err error
	if p.placing != nil {
		err = p.placing()
	}
	return kube.Agent{Namespace: "shop", Pod: p.name, PodUID: p.uid(), Container: fmt.Sprint("culvert-agent-", p.placed), ControlPort: 7842, CarrierPort: 7841}, err
}

func (c *fakeCluster) WatchAgent(ctx context.Context, a kube.Agent, w kube.Watch[kube.AgentState]) {
	c.set(func() { c.following++ })
	defer c.set(func() { c.following-- })
	var told error
	for ctx.Err() == nil {
		c.mu.Lock()
		p, changed := c.pod(a.Pod), c.changed
		s, trouble := p.state, p.trouble
		s.PodLeaves = p.leaves
		if p.gone {
			s = kube.AgentState{Phase: kube.AgentGone}
		}
		c.mu.Unlock()
		if trouble != told {
			told = trouble
			w.Trouble(trouble)
		}
		if trouble == nil {
			w.Changed(&s)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (c *fakeCluster) DialAgent(ctx context.Context, a kube.Agent, port int) (io.ReadWriteCloser, error) {
	c.set(func() { c.dialled++ })
	if err := c.ask(ctx, "dial"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pod(a.Pod)
	if port != 7842 || p.deaf || p.gone || p.state.Phase != kube.AgentRunning {
		return nil, failure.Newf(failure.Unreachable, "nobody listens in pod %s", a.Pod)
	}
	near, far := net.Pipe()
	go c.answer(p, far) // ends with near
	return near, nil
}

// answer is the agent's side of one stream.
func (c *fakeCluster) answer(p *fakePod, conn net.Conn) {
	defer conn.Close()
	requests := make(chan enrol.Request)
	go func() { // ends with the stream
		defer close(requests)
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			r, err := enrol.ParseRequest(lines.Bytes())
			if err != nil {
				panic(err) // of this program's own
			}
			c.set(func() { p.requests = append(p.requests, r) })
			requests <- r
		}
	}()
	for range requests {
		for {
			c.mu.Lock()
			silent, changed := p.silent, c.changed
			c.mu.Unlock()
			if !silent {
				break
			}
			select {
			case <-changed:
			case <-requests: // the stream's end: nobody asks twice before the answer
				return
			}
		}
		if _, err := conn.Write(c.says(p)); err != nil {
			conn.Close()
		}
	}
}

// says is what the agent answers now.
func (c *fakeCluster) says(p *fakePod) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := enrol.Answer{PublicKey: p.key, PodUID: p.podUID}
	if answer.PodUID == "" {
		answer.PodUID = string(p.uid())
	}
	text, err := enrol.AppendAnswer(nil, answer, p.refusal)
	if err != nil {
		panic(err) // of this program's own
	}
	return text
}

// walk is a Keeper that runs in a synctest bubble.
type walk struct {
	*Keeper
	t       *testing.T
	cluster *fakeCluster
	states  chan State
	stop    context.CancelFunc
	done    chan struct{}
}

func twin(real, virtual string) enrol.Twin {
	return enrol.Twin{Real: netip.MustParsePrefix(real), Virtual: netip.MustParsePrefix(virtual)}
}

var (
	oneTwin  = []enrol.Twin{twin("10.1.0.0/16", "246.1.0.0/16")}
	twoTwins = []enrol.Twin{oneTwin[0], twin("10.2.0.0/16", "246.2.0.0/16")}
	nodeKey  = wgtypes.Key{99}
)

// start runs a Keeper for the cluster; end must be called in the bubble.
func start(t *testing.T, c *fakeCluster) *walk {
	w := &walk{t: t, cluster: c, states: make(chan State, 4096), done: make(chan struct{})}
	w.Keeper = New(Config{
		Workload: policy.Workload{Name: "echo"}, Namespace: "shop", Cluster: c, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Request: enrol.Request{Connection: "mine", PublicKey: nodeKey, Twins: oneTwin,
			Node: []netip.Addr{netip.MustParseAddr("245.1.0.2")}, Agent: []netip.Addr{netip.MustParseAddr("245.1.0.5")}},
		OnChange: func(s State) { w.states <- s },
	})
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	go func() { defer close(w.done); w.Run(ctx) }()
	return w
}

// until waits for a state and returns how long that took. Time is the bubble's.
func (w *walk) until(what string, is func(State) bool) (State, time.Duration) {
	w.t.Helper()
	begin := time.Now()
	late := time.After(24 * time.Hour)
	var last State
	for {
		select {
		case last = <-w.states:
			if is(last) {
				return last, time.Since(begin)
			}
		case <-late:
			w.t.Fatalf("not within a day: %s; at last %+v", what, last)
		}
	}
}

// up waits until the agent in that pod serves.
func (w *walk) up(pod string) (State, time.Duration) {
	w.t.Helper()
	return w.until("up in pod "+pod, func(s State) bool { return s.Phase == Up && s.Agent.Pod == pod && s.Err == nil })
}

// pass lets time go by.
func (w *walk) pass(d time.Duration) { <-time.After(d) }

// end ends Run and returns how long it took.
func (w *walk) end() time.Duration {
	w.t.Helper()
	begin := time.Now()
	w.stop()
	<-w.done
	if s := w.State(); s.Phase != Closed {
		w.t.Errorf("after the end: %s", s.Phase)
	}
	if n := get(w.cluster, func() int { return w.cluster.following }); n != 0 {
		w.t.Errorf("%d watches go on", n)
	}
	return time.Since(begin)
}

// asked are the requests that the agent in a pod took.
func (w *walk) asked(pod string) []enrol.Request {
	return get(w.cluster, func() []enrol.Request { return slices.Clone(w.cluster.pod(pod).requests) })
}

// byes counts goodbyes.
func byes(requests []enrol.Request) (n int) {
	for _, r := range requests {
		if r.Bye {
			n++
		}
	}
	return n
}

var errOutage = failure.New(failure.Unreachable, errors.New("the API server does not answer"), "is the VPN up?")
