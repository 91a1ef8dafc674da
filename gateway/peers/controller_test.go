package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/culvert-dev/culvert/gateway/tunnel/tunneltest"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

const namespace = "culvert"

// bench is a running Controller with an API and a host of its own.
type bench struct {
	*testing.T
	api  dynamic.ResourceInterface
	fake *fake.FakeDynamicClient
	host *tunneltest.Host
	ctl  *Controller
	stop func() // ends the Controller and waits; called by the test's end too
}

func start(t *testing.T, peers ...v1alpha1.Peer) *bench {
	t.Helper()
	return startWith(t, func(*fake.FakeDynamicClient) {}, peers...)
}

// startWith is start with an API prepared by prepare.
func startWith(t *testing.T, prepare func(*fake.FakeDynamicClient), peers ...v1alpha1.Peer) *bench {
	t.Helper()
	var objects []runtime.Object
	for _, p := range peers {
		objects = append(objects, encode(t, p))
	}
	client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{Resource: "PeerList"}, objects...)
	prepare(client)
	b := &bench{T: t, fake: client, api: client.Resource(Resource).Namespace(namespace), host: tunneltest.NewHost()}
	b.ctl = New(Config{Client: client, Namespace: namespace, WireGuard: b.host, Plane: b.host, Gateway: gateway, Key: ownKey})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.ctl.Run(ctx) }()
	b.stop = func() { cancel(); <-done }
	t.Cleanup(func() { b.stop(); goleak.VerifyNone(t) })
	return b
}

func encode(t *testing.T, p v1alpha1.Peer) *unstructured.Unstructured {
	t.Helper()
	p.APIVersion, p.Kind, p.Namespace = v1alpha1.Group+"/"+v1alpha1.Version, v1alpha1.PeerKind, namespace
	p.CreationTimestamp = metav1.Time{Time: time.Now().Add(p.CreationTimestamp.Sub(noon)).Truncate(time.Second)}
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	return u
}

func (b *bench) create(p v1alpha1.Peer) {
	b.Helper()
	if _, err := b.api.Create(context.Background(), encode(b.T, p), metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
}

// status returns the Peer's status as the API has it.
func (b *bench) status(name string) v1alpha1.PeerStatus {
	b.Helper()
	u, err := b.api.Get(context.Background(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return v1alpha1.PeerStatus{}
	}
	if err != nil {
		b.Fatal(err)
	}
	p, err := decode(u)
	if err != nil {
		b.Fatal(err)
	}
	return p.Status
}

func (b *bench) reason(name string) string {
	if c := b.status(name).Conditions; len(c) == 1 {
		return c[0].Reason
	}
	return ""
}

// eventually fails the test unless ok holds within 10 s.
func (b *bench) eventually(what string, ok func() bool) {
	b.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("never: %s (host: %s)", what, b.host.Took())
		}
	}
}

// writes counts the requests that changed something.
func (b *bench) writes() (n int) {
	for _, a := range b.fake.Actions() {
		if a.GetVerb() == "patch" || a.GetVerb() == "delete" || a.GetVerb() == "update" {
			n++
		}
	}
	return n
}

func TestControllerServesAndAnswers(t *testing.T) {
	b := start(t)
	b.eventually("ready with nobody", b.ctl.Ready)
	b.create(peer("a", 0, "245.1.2.4/32 fd7a:1::4/128"))
	b.eventually("a is answered", func() bool { return b.reason("a") == v1alpha1.ReasonAccepted })
	if !b.host.Admits("a") {
		t.Error("the node was told before it is served")
	}
	b.create(peer("b", 1, "245.1.2.6/32", withKey(keyOf("a"))))
	b.eventually("b is refused", func() bool { return b.reason("b") == v1alpha1.ReasonDuplicateKey })
	if n := b.writes(); n != 2 {
		t.Errorf("%d writes for two answers", n)
	}

	if err := b.api.Delete(context.Background(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.eventually("b takes over the key", func() bool { return b.reason("b") == v1alpha1.ReasonAccepted })
	b.eventually("a's address is gone", func() bool {
		plane := b.host.Plane()
		return len(plane) == 1 && plane[0].Name == "b"
	})
}

func TestControllerTakesUpExistingPeers(t *testing.T) {
	var many []v1alpha1.Peer
	for i := range 200 {
		addr := netip.AddrFrom4([4]byte{245, 1, byte(i), 4})
		many = append(many, peer(fmt.Sprintf("p%03d", i), -i, addr.String()+"/32", func(p *v1alpha1.Peer) {
			p.Status.Gateway = &v1alpha1.PeerGateway{Pod: "culvert-gateway-0", PodUID: "old", PublicKey: keyOf("old").String()}
			p.Status.ReceivedBytes = 7
		}))
	}
	b := start(t, many...)
	b.eventually("all are answered", func() bool {
		for _, p := range many {
			s := b.status(p.Name)
			if s.Gateway == nil || s.Gateway.PodUID != "pod-1" || s.ReceivedBytes != 7 {
				return false
			}
		}
		return true
	})
	if n := b.writes(); n != len(many) {
		t.Errorf("%d writes for %d Peers", n, len(many))
	}
}

func TestControllerReactsToReservedPrefixes(t *testing.T) {
	b := start(t, peer("a", 0, "245.1.2.4/32"))
	b.eventually("a is served", func() bool { return b.reason("a") == v1alpha1.ReasonAccepted })
	b.ctl.SetReserved([]netip.Prefix{netip.MustParsePrefix("245.0.0.0/8")})
	b.eventually("a conflicts", func() bool { return b.reason("a") == v1alpha1.ReasonAddressConflict && !b.host.Admits("a") })
	b.ctl.SetReserved(nil)
	b.eventually("a is served again", func() bool { return b.reason("a") == v1alpha1.ReasonAccepted && b.host.Admits("a") })
}

// A node changes its twins while it is served: it is told that they hold when they do, and the device, which
// knows nothing of them, is left alone.
func TestControllerFollowsTwins(t *testing.T) {
	p := peer("a", 0, "245.1.2.4/32")
	b := start(t, p)
	b.eventually("a is served", func() bool { return b.reason("a") == v1alpha1.ReasonAccepted })
	b.host.Took()
	applied := func(n int, real string) bool {
		plane := b.host.Plane()
		return len(plane) == 1 && len(plane[0].Twins) == n && (n == 0 || plane[0].Twins[0].Real.String() == real)
	}
	for i, step := range []struct {
		twins string
		n     int
		real  string // of the first by its virtual prefix
	}{
		{"10.130.0.0/16 246.130.0.0/16", 1, "10.130.0.0/16"},
		{"10.132.0.0/16 246.130.0.0/16 10.130.0.0/16 246.131.0.0/16", 2, "10.132.0.0/16"},
		{"", 0, ""},
		{"10.130.0.0/16 246.130.0.0/16", 1, "10.130.0.0/16"},
	} {
		generation := p.Generation + int64(i) + 1
		change, err := json.Marshal(map[string]any{"metadata": map[string]any{"generation": generation}, "spec": map[string]any{"twins": twinsOf(step.twins)}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.api.Patch(context.Background(), "a", "application/merge-patch+json", change, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		b.eventually("the change is answered", func() bool { return b.status("a").ObservedGeneration == generation })
		if r := b.reason("a"); r != v1alpha1.ReasonAccepted || !applied(step.n, step.real) {
			t.Errorf("%q: answered %s, applied %v", step.twins, r, applied(step.n, step.real))
		}
		if got := b.host.Took(); got != "plane a" {
			t.Errorf("%q: steps %q", step.twins, got)
		}
	}
	// A cluster's subnet turns up where the twins are.
	b.ctl.SetReserved([]netip.Prefix{netip.MustParsePrefix("246.128.0.0/9")})
	b.eventually("the twin conflicts", func() bool { return b.reason("a") == v1alpha1.ReasonAddressConflict && !b.host.Admits("a") })
}

func TestControllerTriesAgain(t *testing.T) {
	var refusals atomic.Int32
	b := startWith(t, func(api *fake.FakeDynamicClient) {
		api.PrependReactor("patch", "peers", func(ktesting.Action) (bool, runtime.Object, error) {
			return refusals.Add(1) <= 2, nil, errors.New("the server is overloaded")
		})
	})
	b.create(peer("a", 0, "245.1.2.4/32"))
	b.eventually("a is answered at last", func() bool { return b.reason("a") == v1alpha1.ReasonAccepted })
	if n := refusals.Load(); n != 3 {
		t.Errorf("%d attempts, want 3", n)
	}
}

func TestControllerWaitsForTheDevice(t *testing.T) {
	b := start(t)
	b.eventually("ready", b.ctl.Ready)
	b.host.Fail(errors.New("out of memory"))
	b.create(peer("a", 0, "245.1.2.4/32"))
	b.eventually("configuring fails", func() bool { return b.host.Took() != "" })
	if r := b.reason("a"); r != "" {
		t.Errorf("a was told %s although it is not served", r)
	}
	b.host.Fail(nil)
	b.eventually("a is served", func() bool { return b.reason("a") == v1alpha1.ReasonAccepted && b.host.Admits("a") })
}

func TestControllerDoesNotFightForAStatus(t *testing.T) {
	b := start(t, peer("a", 0, "245.1.2.4/32"))
	b.eventually("a is answered", func() bool { return b.reason("a") == v1alpha1.ReasonAccepted })
	for i := range 50 {
		// The fake API leaves counting resource versions to us.
		patch := fmt.Appendf(nil, `[{"op":"add","path":"/status","value":{}},{"op":"add","path":"/metadata/resourceVersion","value":"1%d"}]`, i)
		if _, err := b.api.Patch(context.Background(), "a", "application/json-patch+json", patch, metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		b.eventually("the mirror sees it", func() bool {
			for _, p := range b.ctl.mirror.Items() {
				return p.Status.Gateway == nil || b.status("a").Gateway != nil
			}
			return false
		})
	}
	if n := b.writes() - 50; n > 8 {
		t.Errorf("answered %d times in a moment", n)
	}
	b.eventually("a is answered again", func() bool { return b.reason("a") == v1alpha1.ReasonAccepted })
}

func TestControllerDeletesSilentPeers(t *testing.T) {
	b := start(t, peer("old", -8*24*60, "245.1.2.4/32"), peer("young", 0, "245.1.2.6/32"))
	b.eventually("both are answered", func() bool {
		return b.reason("old") == v1alpha1.ReasonAccepted && b.reason("young") == v1alpha1.ReasonAccepted
	})
	b.stop()

	// The same with a gateway that has listened long enough.
	b.ctl = New(Config{Client: b.fake, Namespace: namespace, WireGuard: b.host, Plane: b.host, Gateway: gateway, Key: ownKey})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	b.ctl.started = time.Now().Add(-2 * silentGrace)
	go func() {
		defer close(done)
		watching := make(chan struct{})
		go func() { defer close(watching); b.ctl.mirror.Run(ctx) }()
		b.ctl.loop(ctx)
		b.ctl.writer.wait()
		<-watching
	}()
	b.stop = func() { cancel(); <-done }
	b.eventually("the old one is deleted", func() bool {
		_, err := b.api.Get(context.Background(), "old", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	b.eventually("the young one stays", func() bool { return b.reason("young") == v1alpha1.ReasonAccepted })
	if b.host.Admits("old") {
		t.Error("the deleted Peer is still served")
	}
}

func TestControllerSaysFarewell(t *testing.T) {
	b := start(t, peer("a", 0, "245.1.2.4/32"), peer("b", 1, "245.1.2.4/32"))
	b.eventually("both are answered", func() bool {
		return b.reason("a") == v1alpha1.ReasonAccepted && b.reason("b") == v1alpha1.ReasonAddressConflict
	})
	begin := time.Now()
	b.stop()
	if took := time.Since(begin); took > FarewellTimeout+10*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if s := b.status("a"); s.Gateway != nil || b.reason("a") != v1alpha1.ReasonGatewayShutdown {
		t.Errorf("a's status is %+v", s)
	}
	if r := b.reason("b"); r != v1alpha1.ReasonAddressConflict {
		t.Errorf("b was told %s", r)
	}
}

func TestWriterCoalescesCounters(t *testing.T) {
	b := start(t)
	b.stop()
	w := newWriter(b.api, b.ctl.log, b.ctl.metrics)
	p := peer("a", 0, "245.1.2.4/32")
	answer := NewPlan(input(p)).Answers[0]
	now := time.Now()
	r := w.record(p.UID)
	r.written, r.basis, r.lastWrite = &answer.Status, p.ResourceVersion, now
	counted := answer
	counted.Status.SentBytes = 5
	if got := w.due(job{Ref: counted.Ref, want: counted.Status, object: p}, r, now); !got.Equal(now.Add(countsEvery)) {
		t.Errorf("counters are due at %v after the last write", got.Sub(now))
	}
	moved := counted
	moved.Status.ObservedGeneration++
	if got := w.due(job{Ref: moved.Ref, want: moved.Status, object: p}, r, now); got.After(now) {
		t.Errorf("what a node waits for is due in %v", got.Sub(now))
	}
}
