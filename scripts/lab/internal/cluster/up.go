// Package cluster runs a real Kubernetes control plane and real nodes inside
// the lab's hosts: their certificates, configuration, images and the order in
// which they start.
//
//	etcd ─► API server ─► controller manager, scheduler ─┐
//	containerd ─► images ────────────────────────────────┴─► kubelet, kube-proxy ─► CNI ─► node ready
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/culvert-dev/culvert/scripts/lab/internal/build"
	"github.com/culvert-dev/culvert/scripts/lab/internal/kube"
	"github.com/culvert-dev/culvert/scripts/lab/internal/launch"
	"github.com/culvert-dev/culvert/scripts/lab/internal/proc"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// Cluster is a cluster being brought up.
type Cluster struct {
	Lab *state.Lab
	Bin build.Binaries
	Out io.Writer // progress
}

// Up starts everything and returns when every node is ready and the manifests
// are applied. Pods may still be starting.
func (c Cluster) Up(ctx context.Context, manifests string) error {
	if err := c.prepare(); err != nil {
		return err
	}
	// Two strands that meet at kubelet: the API server, and containerd with the
	// images.
	var images error
	var wait sync.WaitGroup
	wait.Go(func() { images = c.startRuntimes(ctx) })
	err := c.startControlPlane(ctx)
	wait.Wait()
	if err := errors.Join(err, images); err != nil {
		return err
	}
	for i := 1; i <= c.Lab.Options.Nodes; i++ {
		if err := c.startNode(ctx, c.node(i)); err != nil {
			return err
		}
	}
	if err := c.apply(ctx, manifests); err != nil {
		return err
	}
	return c.joinNodes(ctx)
}

func (c Cluster) node(i int) node { return node{lab: c.Lab, bin: c.Bin, index: i} }

// prepare writes what must be there before the first process: cgroups,
// certificates, kubeconfigs.
func (c Cluster) prepare() error {
	group, err := proc.OpenCgroup(c.Lab.Name)
	if err != nil {
		return err
	}
	if err := writePKI(c.Lab); err != nil {
		return err
	}
	if err := writeKubeconfig(c.Lab, AdminKubeconfig(c.Lab), "admin", "admin", devUID); err != nil {
		return err
	}
	clients := map[string]string{
		"kube-controller-manager": "system:kube-controller-manager",
		"kube-scheduler":          "system:kube-scheduler",
		"kube-proxy":              "system:kube-proxy",
	}
	for i := 1; i <= c.Lab.Options.Nodes; i++ {
		name := topology.Node(i)
		clients["kubelet-"+name] = "system:node:" + name
		if err := group.Create(name); err != nil {
			return err
		}
	}
	for cert, user := range clients {
		if err := writeKubeconfig(c.Lab, c.Lab.Path("kubeconfigs", cert), user, cert, 0); err != nil {
			return err
		}
	}
	return nil
}

func (c Cluster) startControlPlane(ctx context.Context) error {
	plane := control{lab: c.Lab, bin: c.Bin}
	for _, spec := range []launch.Spec{plane.etcd(), plane.apiserver()} {
		if _, err := launch.Start(c.Lab, spec); err != nil {
			return err
		}
	}
	api, err := Client(c.Lab)
	if err != nil {
		return err
	}
	defer api.Close()
	if err := c.await(ctx, time.Minute, "the API server", []string{"etcd", "kube-apiserver"}, func() error { return api.Ready(ctx) }); err != nil {
		return err
	}
	for _, spec := range []launch.Spec{plane.controllerManager(), plane.scheduler()} {
		if _, err := launch.Start(c.Lab, spec); err != nil {
			return err
		}
	}
	return nil
}

// startRuntimes starts containerd on every node and loads the lab's images.
func (c Cluster) startRuntimes(ctx context.Context) error {
	for i := 1; i <= c.Lab.Options.Nodes; i++ {
		spec, err := c.node(i).containerd()
		if err != nil {
			return err
		}
		if _, err := launch.Start(c.Lab, spec); err != nil {
			return err
		}
	}
	archives, err := writeImages(c.Lab, c.Bin)
	if err != nil {
		return err
	}
	for i := 1; i <= c.Lab.Options.Nodes; i++ {
		name := topology.Node(i)
		err := c.await(ctx, 30*time.Second, "containerd on "+name, []string{"containerd-" + name}, func() error {
			conn, err := net.Dial("unix", Socket(c.Lab, name))
			if err == nil {
				conn.Close()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, archive := range archives {
		if _, err := LoadImage(ctx, c.Lab, c.Bin, archive); err != nil {
			return err
		}
	}
	return os.RemoveAll(c.Lab.Path("images"))
}

func (c Cluster) startNode(ctx context.Context, n node) error {
	if _, err := launch.Output(ctx, c.Lab, n.name(), strings.NewReader(n.masquerade()), "nft", "-f", "-"); err != nil {
		return err
	}
	for _, describe := range []func() (launch.Spec, error){n.kubelet, n.proxy} {
		spec, err := describe()
		if err != nil {
			return err
		}
		if _, err := launch.Start(c.Lab, spec); err != nil {
			return err
		}
	}
	return nil
}

// apply hands manifests to kubectl.
func (c Cluster) apply(ctx context.Context, manifests string) error {
	_, err := launch.Output(ctx, c.Lab, topology.Node(1), strings.NewReader(manifests),
		c.Bin["kubectl"], "--kubeconfig", AdminKubeconfig(c.Lab), "apply", "--server-side", "--validate=ignore", "-f", "-")
	return err
}

// joinNodes gives every node its pod network once the controller manager has
// assigned it, and waits until all are ready.
func (c Cluster) joinNodes(ctx context.Context) error {
	api, err := Client(c.Lab)
	if err != nil {
		return err
	}
	defer api.Close()
	var nodes map[string]kube.Node
	processes := []string{"etcd", "kube-apiserver", "kube-controller-manager"}
	for i := 1; i <= c.Lab.Options.Nodes; i++ {
		processes = append(processes, "kubelet-"+topology.Node(i), "kube-proxy-"+topology.Node(i), "containerd-"+topology.Node(i))
	}
	err = c.await(ctx, time.Minute, "the nodes to register", processes, func() (err error) {
		nodes, err = api.Nodes(ctx)
		return errors.Join(err, c.assigned(nodes))
	})
	if err != nil {
		return err
	}
	if err := c.connectPods(nodes); err != nil {
		return err
	}
	return c.await(ctx, time.Minute, "the nodes to be ready", processes, func() error {
		nodes, err := api.Nodes(ctx)
		if err != nil {
			return err
		}
		for name, n := range nodes {
			if !n.Ready {
				return fmt.Errorf("%s: %s", name, n.Reason)
			}
		}
		return nil
	})
}

func (c Cluster) assigned(nodes map[string]kube.Node) error {
	for i := 1; i <= c.Lab.Options.Nodes; i++ {
		if len(nodes[topology.Node(i)].PodCIDRs) != len(c.Lab.Options.Pods) {
			return fmt.Errorf("%s has no pod CIDR yet", topology.Node(i))
		}
	}
	return nil
}

func (c Cluster) connectPods(nodes map[string]kube.Node) error {
	for i := 1; i <= c.Lab.Options.Nodes; i++ {
		n := c.node(i)
		h, err := c.Lab.Host(n.name())
		if err != nil {
			return err
		}
		for other := 1; other <= c.Lab.Options.Nodes; other++ {
			if other == i {
				continue
			}
			if err := n.routePods(h.Holder.PID, other, nodes[topology.Node(other)].PodCIDRs); err != nil {
				return err
			}
		}
		if err := n.writeCNI(nodes[n.name()].PodCIDRs); err != nil {
			return err
		}
	}
	return nil
}

// await polls ready until it returns nil. It fails early, with the end of the
// log, when one of the named processes has ended.
func (c Cluster) await(ctx context.Context, limit time.Duration, what string, processes []string, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for begin, shown := time.Now(), time.Now(); ; {
		err := ready()
		if err == nil {
			return nil
		}
		if err := c.ended(processes); err != nil {
			return err
		}
		if now := time.Now(); now.Sub(shown) > 10*time.Second {
			shown = now
			fmt.Fprintf(c.Out, "lab: still waiting for %s, %s: %v\n", what, now.Sub(begin).Round(time.Second), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last: %v); logs are in %s", what, ctx.Err(), err, c.Lab.Path("logs"))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c Cluster) ended(processes []string) error {
	for _, name := range processes {
		p, err := c.Lab.Book().Get(name)
		if err == nil && !p.Alive() {
			return fmt.Errorf("%s has ended; the end of %s:\n%s", name, p.Log, launch.Tail(p.Log, 12))
		}
	}
	return nil
}

// Ready reports why the cluster is not ready, or nil: the API server answers,
// all nodes are ready and all workloads complete.
func Ready(ctx context.Context, l *state.Lab) error {
	api, err := Client(l)
	if err != nil {
		return err
	}
	defer api.Close()
	if err := api.Ready(ctx); err != nil {
		return fmt.Errorf("the API server is not ready: %w", err)
	}
	nodes, err := api.Nodes(ctx)
	if err != nil {
		return err
	}
	for i := 1; i <= l.Options.Nodes; i++ {
		if n := nodes[topology.Node(i)]; !n.Ready {
			return fmt.Errorf("%s is not ready: %s", topology.Node(i), n.Reason)
		}
	}
	workloads, err := api.Workloads(ctx)
	if err != nil {
		return err
	}
	for _, w := range workloads {
		if w.Ready < w.Wanted {
			return fmt.Errorf("%s has %d of %d pods ready", w.Name, w.Ready, w.Wanted)
		}
	}
	return nil
}

// WaitReady waits until Ready is satisfied.
func (c Cluster) WaitReady(ctx context.Context) error {
	return c.await(ctx, 2*time.Minute, "the workloads", []string{"kube-apiserver", "kube-scheduler"}, func() error { return Ready(ctx, c.Lab) })
}
