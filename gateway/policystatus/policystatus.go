// Package policystatus keeps the status of the team's Policy current: what is the same for every
// workstation, and what is wrong in the Policy's spec.
//
// The [Publisher] owns nothing but the latest facts it was told. A Policy that does not exist, or was
// deleted and made again, is answered as soon as it is there.
package policystatus

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/culvert-dev/culvert/gateway/mirror"
	"github.com/culvert-dev/culvert/gateway/status"
	"github.com/culvert-dev/culvert/gateway/subnets"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// Resource is where Policies are found in the API.
var Resource = schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: v1alpha1.PolicyResource}

// Facts are what is the same for every workstation.
type Facts struct {
	Subnets subnets.Result
	// ClusterUID identifies the cluster; "" if it cannot be read.
	ClusterUID string
	// ClusterDomain is the DNS suffix of services, without a trailing dot.
	ClusterDomain string
}

// Config of a [Publisher].
type Config struct {
	Client    dynamic.Interface // required
	Namespace string            // required
	// Name of the Policy; required.
	Name string
	// Log gets changes and failures; nil discards them.
	Log *slog.Logger
}

// Publisher writes the status of one Policy. Use [New], then [Publisher.Run] once.
type Publisher struct {
	cfg    Config
	mirror *mirror.Mirror[v1alpha1.Policy]
	facts  chan Facts
	ready  atomic.Bool

	// What Run wrote last, and the resourceVersion it knew then: until the watch has shown another
	// one, this is the status. They belong to the goroutine of Run.
	written *v1alpha1.PolicyStatus
	basis   string
}

// New returns a Publisher that does nothing until Run.
func New(cfg Config) *Publisher {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Publisher{cfg: cfg, facts: make(chan Facts, 1), mirror: mirror.New(mirror.Source{Client: cfg.Client,
		Resource: Resource, Namespace: cfg.Namespace, FieldSelector: "metadata.name=" + cfg.Name,
		What: "Policy " + cfg.Name + " in namespace " + cfg.Namespace, Log: cfg.Log}, decode)}
}

func decode(u *unstructured.Unstructured) (v1alpha1.Policy, error) {
	var p v1alpha1.Policy
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &p)
	p.ManagedFields = nil
	return p, err
}

// Publish tells the facts, in place of those told before. It may be called from any goroutine.
func (p *Publisher) Publish(f Facts) {
	for {
		select {
		case p.facts <- f:
			return
		case <-p.facts: // older news that nobody has read yet
		}
	}
}

// Ready reports whether the Policy, if there is one, has said what this gateway knows once.
func (p *Publisher) Ready() bool { return p.ready.Load() }

// A failed write is tried again after a pause that doubles between these.
const firstRetry, lastRetry = 200 * time.Millisecond, 15 * time.Second

// Run writes the status until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	watching := make(chan struct{})
	go func() { defer close(watching); p.mirror.Run(ctx) }()
	defer func() { <-watching }()
	var facts *Facts
	pause := firstRetry
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-p.facts:
			facts = &f
		case <-p.mirror.Changes():
			if retry != nil {
				continue // a server in trouble is not asked more often for it
			}
		case <-retry:
		}
		retry = nil
		if synced, _ := p.mirror.State(); facts == nil || !synced {
			continue
		}
		if err := p.write(ctx, *facts); err != nil {
			p.cfg.Log.Warn("cannot write the Policy's status, trying again", "err", err)
			retry, pause = time.After(pause), min(2*pause, lastRetry)
			continue
		}
		pause = firstRetry
		p.ready.Store(true)
	}
}

// write brings the status up to what follows from f.
func (p *Publisher) write(ctx context.Context, f Facts) error {
	for name, have := range p.mirror.Items() {
		if name.Name != p.cfg.Name {
			continue // the selector is the server's business, this is ours
		}
		if p.written != nil && p.basis == have.ResourceVersion {
			have.Status = *p.written
		}
		want := statusOf(have, f)
		if apiequality.Semantic.DeepEqual(have.Status, want) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		api := p.cfg.Client.Resource(Resource).Namespace(p.cfg.Namespace)
		if _, err := status.Write(ctx, api, have.Name, have.UID, want); err != nil && !errors.Is(err, status.ErrStale) {
			return err
		}
		p.written, p.basis = &want, have.ResourceVersion
		for _, problem := range want.Problems {
			p.cfg.Log.Warn("the Policy is wrong and ignored as a whole", "problem", problem)
		}
	}
	return nil
}

// statusOf returns the status that follows from a Policy's spec and the facts. It is pure.
func statusOf(p v1alpha1.Policy, f Facts) v1alpha1.PolicyStatus {
	return v1alpha1.PolicyStatus{
		ObservedGeneration: p.Generation,
		Subnets:            v1alpha1.ClusterSubnets{Services: subnetsOf(f.Subnets.Services), Pods: subnetsOf(f.Subnets.Pods)},
		ClusterUID:         f.ClusterUID,
		ClusterDomain:      f.ClusterDomain,
		Problems:           problemsOf(p),
	}
}

func subnetsOf(list []subnets.Subnet) []v1alpha1.Subnet {
	var out []v1alpha1.Subnet
	for _, s := range list {
		out = append(out, v1alpha1.Subnet{CIDR: s.Prefix.String(), Source: s.Source})
	}
	return out
}

// What the schema of the status has room for.
const maxProblems, maxProblemBytes = 64, 1024

// problemsOf returns what is wrong with the spec, one sentence each.
func problemsOf(p v1alpha1.Policy) []string {
	_, err := policy.Validate("", p.Spec)
	var out []string
	for _, e := range parts(err) {
		text := e.Error()
		if len(text) > maxProblemBytes {
			text = strings.ToValidUTF8(text[:maxProblemBytes], "")
		}
		out = append(out, text)
	}
	return out[:min(len(out), maxProblems)]
}

// parts returns the errors joined in err.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err != nil {
		return []error{err}
	}
	return nil
}
