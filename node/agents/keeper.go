package agents

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/internal/enrol"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/policy"
)

// Cluster is what a Keeper needs of the Kubernetes API; [kube.Client] has it. All return soon after ctx has ended.
type Cluster interface {
	Resolve(ctx context.Context, w policy.Workload, namespace string) (*kube.Workload, error)
	PickPod(ctx context.Context, w *kube.Workload, keep types.UID, avoid ...types.UID) (*corev1.Pod, error)
	PlaceAgent(ctx context.Context, pod *corev1.Pod, say func(string)) (kube.Agent, error)
	WatchAgent(ctx context.Context, a kube.Agent, w kube.Watch[kube.AgentState])
	DialAgent(ctx context.Context, a kube.Agent, port int) (io.ReadWriteCloser, error)
}

var _ Cluster = (*kube.Client)(nil)

// Config of a [Keeper]. Workload, Cluster and Request are required.
type Config struct {
	Workload  policy.Workload // not the gateway
	Namespace string          // of a Workload without one
	Cluster   Cluster
	// Request is what is asked of the agent. SetTwins changes its twins.
	Request enrol.Request
	// Log gets a line for each agent that is up or lost; nil discards them.
	Log *slog.Logger
	// OnChange is told of every new State by the goroutine of Run, one at a time. It returns soon; it may be nil.
	OnChange func(State)
}

// Keeper keeps an agent in a pod of one workload. Make it with New. Safe for concurrent use.
type Keeper struct {
	config Config
	wake   chan struct{} // capacity 1: something is to be done now rather than later

	mu    sync.Mutex
	twins []enrol.Twin // wanted; replaced, never changed
	state State
}

// New returns a Keeper that does nothing yet.
func New(c Config) *Keeper {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{config: c, wake: make(chan struct{}, 1), twins: slices.Clone(c.Request.Twins), state: State{Workload: c.Workload, Phase: Idle}}
}

// State returns how things stand now.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// SetTwins asks the agent for these twins instead of those before, at once if one is up. State.Twins tells when
// it has taken them up. It does not wait.
func (k *Keeper) SetTwins(twins []enrol.Twin) {
	k.mu.Lock()
	k.twins = slices.Clone(twins)
	k.mu.Unlock()
	k.Kick()
}

// Kick makes Run try at once what it waits for: to find an agent, or to learn whether the one that is up still
// answers. The path to the cluster is another one, or the carrier to the agent was lost. It does not wait.
func (k *Keeper) Kick() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// request returns what to ask of an agent.
func (k *Keeper) request() enrol.Request {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.config.Request
	r.Twins = k.twins
	return r
}

// update changes the state and tells OnChange. Only the goroutine of Run calls it.
func (k *Keeper) update(change func(*State)) {
	k.mu.Lock()
	next := k.state
	change(&next)
	if next.Phase != k.state.Phase {
		next.Since = time.Now()
	}
	k.state = next
	k.mu.Unlock()
	if k.config.OnChange != nil {
		k.config.OnChange(next)
	}
}
