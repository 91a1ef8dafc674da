package subnets

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/culvert-dev/culvert/gateway/mirror"
)

var (
	nodesResource = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	podsResource  = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	// serviceCIDRs in the order they are tried: v1 since Kubernetes 1.33, v1beta1 where it was turned on before.
	serviceCIDRs = []schema.GroupVersionResource{
		{Group: "networking.k8s.io", Version: "v1", Resource: "servicecidrs"},
		{Group: "networking.k8s.io", Version: "v1beta1", Resource: "servicecidrs"},
	}
)

// Config of a [Discoverer].
type Config struct {
	Client dynamic.Interface // required where ClusterScope is set
	// Namespace is the gateway's, where an impossible Service is asked for.
	Namespace string
	// ClusterScope lets the whole cluster be read; without it only Services and Pods are known.
	ClusterScope bool
	// Services and Pods are the chart's values.
	Services, Pods []netip.Prefix
	// Own are the gateway's addresses among the pods'.
	Own []netip.Addr
	// OnChange gets every new result, from one goroutine at a time. Required.
	OnChange func(Result)
	// Log says what was found; nil discards it.
	Log *slog.Logger
}

const (
	// patience is how long a first result waits for sources that have not answered.
	patience = 10 * time.Second
	// settle is how long changes are gathered: a roll-out moves many pods, and each new result
	// changes the routes of every workstation.
	settle = time.Second
	// askAgain is how often what cannot be watched is asked again.
	askAgain = 5 * time.Minute
)

// Discoverer keeps the Result current. Use [New], then [Discoverer.Run] once.
type Discoverer struct {
	cfg      Config
	nodes    *mirror.Mirror[[]netip.Prefix]
	pods     *mirror.Mirror[[]netip.Addr]
	services chan serviceFacts
	declared chan []netip.Prefix // one answer of askDeclared

	// What follows belongs to the goroutine of Run.
	facts        Facts
	serviceSeen  bool // the service range is known, or known to be unknown
	declaredSeen bool // likewise kubeadm's configuration
	watchPods    bool // the mirror of pods runs
	nodesSeen    bool // the nodes had answered before they were gathered last, be it with an error
	podsSeen     bool // likewise the pods
	reported     *Result
}

// serviceFacts is what one way of asking for the service range brought.
type serviceFacts struct {
	cidrs  map[string][]netip.Prefix
	answer []netip.Prefix
}

// New returns a Discoverer that does nothing until Run.
func New(cfg Config) *Discoverer {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	source := func(r schema.GroupVersionResource, what string) mirror.Source {
		return mirror.Source{Client: cfg.Client, Resource: r, What: what, Trim: trim, Log: cfg.Log}
	}
	return &Discoverer{cfg: cfg,
		nodes:    mirror.New(source(nodesResource, "nodes"), nodeCIDRs),
		pods:     mirror.New(source(podsResource, "pods of all namespaces"), podAddrs),
		services: make(chan serviceFacts),
		declared: make(chan []netip.Prefix, 1),
		facts:    Facts{Services: cfg.Services, Pods: cfg.Pods, Own: cfg.Own},
	}
}

// Run watches until ctx ends.
func (d *Discoverer) Run(ctx context.Context) {
	if !d.cfg.ClusterScope {
		d.report(Decide(d.facts))
		return
	}
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { d.nodes.Run(ctx) })
	group.Go(func() { d.watchServices(ctx) })
	group.Go(func() { d.declared <- d.askDeclared(ctx) })
	d.loop(ctx, &group)
}

// loop owns the state until ctx ends.
func (d *Discoverer) loop(ctx context.Context, group *sync.WaitGroup) {
	deadline := time.After(patience)
	late := false
	var look <-chan time.Time // set while changes wait to be looked at
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-d.services:
			d.facts.ServiceCIDRs, d.facts.ServiceAnswer, d.serviceSeen = s.cidrs, s.answer, true
		case d.facts.Declared = <-d.declared:
			d.declaredSeen = true
		case <-d.nodes.Changes():
		case <-d.pods.Changes():
		case <-deadline:
			late = true
		case <-look:
			look = nil
			r := d.gather()
			if r.NeedCover && !d.watchPods && d.nodesSeen {
				d.watchPods = true
				group.Go(func() { d.pods.Run(ctx) })
			}
			if d.complete(r) || late {
				d.report(r)
			}
			continue
		}
		if look == nil {
			look = time.After(d.pause())
		}
	}
}

// pause returns how long to wait for further changes: hardly before the first result, which somebody
// may be waiting for.
func (d *Discoverer) pause() time.Duration {
	if d.reported == nil {
		return time.Millisecond
	}
	return settle
}

// gather reads the mirrors and decides.
func (d *Discoverer) gather() Result {
	d.nodesSeen, d.podsSeen = answered(d.nodes.State()), answered(d.pods.State()) // before the items: they may come now
	d.facts.Nodes = nil
	for _, list := range d.nodes.Items() {
		d.facts.Nodes = append(d.facts.Nodes, list...)
	}
	var addrs []netip.Addr
	for _, list := range d.pods.Items() {
		addrs = append(addrs, list...)
	}
	d.facts.PodCover = Cover(d.facts.PodCover, addrs)
	return Decide(d.facts)
}

// complete reports whether all sources that r, the last result, rests on had answered, be it with an error.
func (d *Discoverer) complete(r Result) bool {
	return d.serviceSeen && d.declaredSeen && d.nodesSeen && (!r.NeedCover || d.podsSeen)
}

// answered reports whether a mirror's source has said something, given the mirror's State.
func answered(synced bool, err error) bool { return synced || err != nil }

// report hands r on if it is news.
func (d *Discoverer) report(r Result) {
	if d.reported != nil && slices.Equal(d.reported.Services, r.Services) && slices.Equal(d.reported.Pods, r.Pods) {
		return
	}
	d.reported = &r
	d.cfg.Log.Info("cluster subnets", "services", r.ServicePrefixes(), "pods", r.PodPrefixes())
	for kind, list := range map[string][]Subnet{"services": r.Services, "pods": r.Pods} {
		if len(list) == 0 {
			d.cfg.Log.Warn("no subnet of "+kind+" could be discovered",
				"hint", "name them in the chart: discovery."+map[string]string{"services": "serviceSubnets", "pods": "podSubnets"}[kind])
		}
	}
	d.cfg.OnChange(r)
}

// watchServices finds a way to learn the service range and follows it until ctx ends.
func (d *Discoverer) watchServices(ctx context.Context) {
	for {
		if resource, ok := d.servedServiceCIDRs(ctx); ok {
			d.followServiceCIDRs(ctx, resource)
			return
		}
		if !d.send(ctx, serviceFacts{answer: askServices(ctx, d.cfg.Client, d.cfg.Namespace)}) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(askAgain):
		}
	}
}

// servedServiceCIDRs returns the version of ServiceCIDR that can be listed. Failures other than "not
// served" and "not allowed" are tried again.
func (d *Discoverer) servedServiceCIDRs(ctx context.Context) (schema.GroupVersionResource, bool) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		definite := true
		for _, r := range serviceCIDRs {
			_, err := d.cfg.Client.Resource(r).List(ctx, metav1.ListOptions{Limit: 1})
			if err == nil {
				return r, true
			}
			definite = definite && (apierrors.IsNotFound(err) || apierrors.IsForbidden(err))
		}
		if definite {
			return schema.GroupVersionResource{}, false
		}
		select {
		case <-ctx.Done():
			return schema.GroupVersionResource{}, false
		case <-time.After(pause):
		}
	}
}

// followServiceCIDRs sends the ServiceCIDRs whenever they change.
func (d *Discoverer) followServiceCIDRs(ctx context.Context, resource schema.GroupVersionResource) {
	m := mirror.New(mirror.Source{Client: d.cfg.Client, Resource: resource, What: "ServiceCIDRs", Log: d.cfg.Log}, serviceCIDRsOf)
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { m.Run(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.Changes():
		}
		if synced, _ := m.State(); !synced {
			continue
		}
		cidrs := map[string][]netip.Prefix{}
		for name, list := range m.Items() {
			cidrs[name.Name] = list
		}
		if !d.send(ctx, serviceFacts{cidrs: cidrs}) {
			return
		}
	}
}

// send hands facts to the loop; false means that ctx has ended.
func (d *Discoverer) send(ctx context.Context, s serviceFacts) bool {
	select {
	case d.services <- s:
		return true
	case <-ctx.Done():
		return false
	}
}
