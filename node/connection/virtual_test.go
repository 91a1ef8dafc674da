package connection

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// hidden returns a session that hides the cluster's subnets from a VPN, as far as deciding goes, in a state
// directory of its own.
func hidden(t *testing.T) *Session {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	return hiddenAgain(t, "default")
}

// hiddenAgain is hidden with the state directory as it is.
func hiddenAgain(t *testing.T, name string) *Session {
	t.Helper()
	p := team("1", nil, "10.132.0.0/16")
	p.Spec.Routing.OnConflict = "virtualize"
	s := connectedTo(t, p, policy.Facts{})
	s.request.Name = name
	s.takeFacts(behindVPN(), true)
	if err := s.settle([16]byte{1}); err != nil {
		t.Fatal(err)
	}
	s.setPlan(policy.NewPlan(s.planInput(s.settings, s.cluster)))
	if open := s.plan.Unsettled(); len(open) > 0 || len(s.plan.Virtualized) != 2 {
		t.Fatalf("unsettled %+v, virtualized %v", open, s.plan.Virtualized)
	}
	return s
}

func virtualOf(s *Session) (out []string) {
	for _, t := range s.plan.Twins {
		out = append(out, t.Virtual.String())
	}
	return out
}

// TestPreviewOfARunningConnectionHasItsVirtualAddresses: what would come of connecting again, with the same
// overlay addresses, has the virtual ones too.
func TestPreviewOfARunningConnectionHasItsVirtualAddresses(t *testing.T) {
	running := hidden(t)
	running.rememberTwins()
	preview := connectedTo(t, running.knowledge.policy, policy.Facts{})
	preview.request.Name = "default"
	preview.takeFacts(behindVPN(), true)
	preview.iface, preview.overlay = running.iface, running.overlay
	if err := preview.settle([16]byte{2}); err != nil {
		t.Fatal(err)
	}
	preview.setPlan(policy.NewPlan(preview.planInput(preview.settings, preview.cluster)))
	if got, want := virtualOf(preview), virtualOf(running); !slices.Equal(got, want) || len(preview.plan.Virtualized) != 2 {
		t.Errorf("%v, in preview %v; %v are virtualized", want, got, preview.plan.Virtualized)
	}
	if !slices.Equal(preview.overlay, running.overlay) {
		t.Errorf("overlay %v, in preview %v", running.overlay, preview.overlay)
	}
}

// TestVirtualAddressesAreRemembered: the next connection to the cluster has those of the last, also after
// another one, which has others.
func TestVirtualAddressesAreRemembered(t *testing.T) {
	first := hidden(t)
	want := virtualOf(first)
	first.rememberTwins()
	second := hiddenAgain(t, "second")
	if got := second.virtual.chosen.V4; got == first.virtual.chosen.V4 {
		t.Errorf("two connections use %s", got)
	}
	second.rememberTwins()
	again := hiddenAgain(t, "default")
	if got := virtualOf(again); !slices.Equal(got, want) || len(again.virtual.kept.Assigned) != 2 {
		t.Errorf("%v, then %v", want, got)
	}
}

func TestChoosingWritesNothing(t *testing.T) {
	hidden(t)
	if files, err := os.ReadDir(os.Getenv("XDG_STATE_HOME")); err != nil || len(files) > 0 {
		t.Errorf("%v, %v", files, err)
	}
}

// TestDamagedMemory: what cannot be read is told, set aside, and costs no connection.
func TestDamagedMemory(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	path := filepath.Join(os.Getenv("XDG_STATE_HOME"), "culvert", "virtual.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := hiddenAgain(t, "default")
	if s.notices[noticeTwins] == "" || !strings.Contains(s.notices[noticeTwins], path) {
		t.Errorf("notices %q", s.notices)
	}
	s.rememberTwins()
	if again := hiddenAgain(t, "default"); again.notices[noticeTwins] != "" || len(again.virtual.kept.Assigned) != 2 {
		t.Errorf("notices %q, %d kept", again.notices, len(again.virtual.kept.Assigned))
	}
}

// TestHostWithoutRoomForVirtualAddresses: it matters only where they are asked for.
func TestHostWithoutRoomForVirtualAddresses(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	all := netip.MustParsePrefix("240.0.0.0/4")
	s := connectedTo(t, team("1", nil, "10.132.0.0/16"), policy.Facts{})
	s.knowledge.facts = policy.Facts{
		Rules:  []policy.Rule{{Family: policy.IPv4, Priority: 32766, Table: policy.TableMain}},
		Routes: []policy.Route{{Prefix: all, Table: policy.TableMain, Type: policy.Blackhole}},
	}
	if err := s.chooseVirtual(); err != nil || s.notices[noticeNoVirtual] == "" {
		t.Errorf("%v, notices %q", err, s.notices)
	}
	s.settings.OnConflict = policy.ResolveVirtualize
	if f := failure.Of(s.chooseVirtual()); f == nil || f.Code != failure.Conflict {
		t.Errorf("where they are asked for: %+v", f)
	}
}

// TestNamesWaitForTheGateway: nothing is answered with an address that the gateway does not know.
func TestNamesWaitForTheGateway(t *testing.T) {
	s := hidden(t)
	services := netip.MustParsePrefix("10.130.0.0/16")
	if w := s.withheld(); len(s.dnsTwins()) != 0 || len(w) != 2 || w[0].Prefix != services {
		t.Errorf("before: twins %v, withheld %v", s.dnsTwins(), w)
	}
	s.twinsKnown(peerTwins(s.plan)[:1])
	if got := s.dnsTwins(); len(got) != 1 || got[0].Real != services || len(s.withheld()) != 1 {
		t.Errorf("one known: twins %v, withheld %v", got, s.withheld())
	}
	s.twinsKnown(peerTwins(s.plan))
	if len(s.dnsTwins()) != 2 || len(s.withheld()) != 0 {
		t.Errorf("known: twins %v, withheld %v", s.dnsTwins(), s.withheld())
	}
}

// TestNamesWaitForTheRoutes: when a VPN goes, names lead to real addresses no sooner than routes do; when one
// comes, at once to none.
func TestNamesWaitForTheRoutes(t *testing.T) {
	for resolve, hides := range map[string]bool{"virtualize": true, "yield": false} {
		p := team("1", nil, "10.132.0.0/16")
		p.Spec.Routing.OnConflict = resolve
		s := hidden(t)
		s.knowledge.policy = p
		s.takePolicy(t.Context())
		s.twinsKnown(peerTwins(s.plan))
		kept := func() bool {
			config := s.dnsConfig()
			if hides {
				return len(config.Hidden) == 2 && len(config.Twins) == 2 && len(config.Withheld) == 0
			}
			return len(config.Hidden) == 0 && len(config.Withheld) == 2
		}
		s.inForce = s.plan
		if !kept() {
			t.Errorf("%s: %+v", resolve, s.dnsConfig())
		}
		if s.hostMoved(policy.Facts{}, true, nil); len(s.plan.Virtualized)+len(withheld(s.plan)) != 0 || !kept() {
			t.Errorf("%s, before the routes: %+v", resolve, s.dnsConfig())
		}
		s.inForce = s.plan
		if config := s.dnsConfig(); len(config.Hidden)+len(config.Withheld) != 0 {
			t.Errorf("%s, with the routes: %+v", resolve, config)
		}
		if s.hostMoved(behindVPN(), true, nil); !kept() {
			t.Errorf("%s, the VPN is back: %+v", resolve, s.dnsConfig())
		}
	}
}

// TestTwinsLastAsLongAsTheConnection walks through what happens to the VPN and the cluster: twins stay.
func TestTwinsLastAsLongAsTheConnection(t *testing.T) {
	s := hidden(t)
	first := virtualOf(s)
	steps := []struct {
		name string
		do   func()
	}{
		{"the VPN goes", func() { s.hostMoved(policy.Facts{}, true, nil) }},
		{"the VPN comes back with a route into the virtual subnet", func() {
			f := behindVPN()
			f.Routes = append(f.Routes, policy.Route{Prefix: netip.MustParsePrefix("246.130.0.0/16"), Table: policy.TableMain, NextHops: []policy.NextHop{{Link: 7}}})
			s.hostMoved(f, true, nil)
		}},
		{"the cluster gets another subnet in front of all", func() {
			p := team("2", nil, "10.132.0.0/16", "10.128.0.0/16")
			p.Spec.Routing.OnConflict = "virtualize"
			s.knowledge.policy = p
			s.takePolicy(t.Context())
		}},
		{"and loses its pods'", func() {
			p := team("3", nil, "10.128.0.0/16")
			p.Spec.Routing.OnConflict = "virtualize"
			s.knowledge.policy = p
			s.takePolicy(t.Context())
		}},
	}
	for _, step := range steps {
		step.do()
		got := virtualOf(s)
		if !slices.Contains(got, first[0]) {
			t.Errorf("%s: the services' twin %s is not among %v", step.name, first[0], got)
		}
		if !slices.ContainsFunc(s.virtual.chosen.Assigned, func(x policy.Twin) bool { return x.Virtual.String() == first[1] }) {
			t.Errorf("%s: the pods' twin %s is forgotten: %v", step.name, first[1], s.virtual.chosen.Assigned)
		}
	}
}

// patched is an API server that takes changes of a Peer, or refuses them.
type patched struct {
	mu     sync.Mutex
	refuse bool
	bodies []string
}

func (p *patched) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if p.refuse || r.Method != http.MethodPatch {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`) //nolint:errcheck // the client is gone
		return
	}
	body, _ := io.ReadAll(r.Body)
	p.bodies = append(p.bodies, string(body))
	var patch struct {
		Spec struct {
			Twins []v1alpha1.Twin `json:"twins"`
		} `json:"spec"`
	}
	_ = json.Unmarshal(body, &patch)
	answer := v1alpha1.Peer{
		TypeMeta:   metav1.TypeMeta{APIVersion: "culvert.dev/v1alpha1", Kind: "Peer"},
		ObjectMeta: metav1.ObjectMeta{Name: "peer", UID: "uid", Generation: 2}, Spec: v1alpha1.PeerSpec{Twins: patch.Spec.Twins},
		Status: v1alpha1.PeerStatus{ObservedGeneration: 1, Gateway: &v1alpha1.PeerGateway{Pod: "gateway"}},
	}
	json.NewEncoder(w).Encode(answer) //nolint:errcheck // the client is gone
}

// TestNewSubnetsAreAskedFor: a subnet that comes about while connected is asked for in the Peer, again if
// that fails, and used once the gateway has seen it.
func TestNewSubnetsAreAskedFor(t *testing.T) {
	s := hidden(t)
	server := &patched{refuse: true}
	api := httptest.NewServer(server)
	t.Cleanup(api.Close)
	config := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"k","cluster":{"server":"` + api.URL + `"}}],"contexts":[{"name":"c","context":{"cluster":"k","user":""}}]}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.kube, err = kube.Load(kube.Options{Kubeconfig: config}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kube.Reconnect)
	var background sync.WaitGroup
	s.background, s.mail, s.log = &background, newMailbox(), slog.New(slog.DiscardHandler)
	s.peer = &v1alpha1.Peer{ObjectMeta: metav1.ObjectMeta{Name: "peer", UID: "uid"}}
	s.virtual.asked = peerTwins(s.plan)
	s.askTwins() // nothing is new
	s.plan.Twins = append(s.plan.Twins, policy.Twin{Real: netip.MustParsePrefix("10.133.0.0/16"), Virtual: netip.MustParsePrefix("246.133.0.0/16")})
	s.askTwins()
	s.askTwins() // under way
	(<-s.mail)()
	if s.notices[noticeAskTwins] == "" || len(server.bodies) != 0 {
		t.Fatalf("refused: notices %q, asked %v", s.notices, server.bodies)
	}
	server.mu.Lock()
	server.refuse = false
	server.mu.Unlock()
	s.askTwins()
	(<-s.mail)()
	background.Wait()
	if len(server.bodies) != 1 || !strings.Contains(server.bodies[0], `"virtual":"246.133.0.0/16"`) || !strings.Contains(server.bodies[0], `"uid":"uid"`) || s.notices[noticeAskTwins] != "" {
		t.Fatalf("notices %q, asked %v", s.notices, server.bodies)
	}
	if len(s.virtual.known) != 0 {
		t.Errorf("used before the gateway has seen it: %v", s.virtual.known)
	}
	seen := *s.peer
	seen.Spec.Twins, seen.Status = s.virtual.asked, v1alpha1.PeerStatus{Gateway: &v1alpha1.PeerGateway{Pod: "gateway"}}
	s.gateway = seen.Status.Gateway
	if s.peerChanged(&seen); len(s.virtual.known) != 3 {
		t.Errorf("known %v", s.virtual.known)
	}
}

// TestPoolFollowsThePlan: leases are there with the pool, and last with its file.
func TestPoolFollowsThePlan(t *testing.T) {
	s := hidden(t)
	real := netip.MustParseAddr("10.130.0.7")
	if _, err := s.virtual.leases.Lease(real, "a."); !errors.Is(err, errNoPool) {
		t.Errorf("without a pool: %v", err)
	}
	if s.openPool(); s.virtual.leases.pool.Load() != nil {
		t.Error("a pool that the plan does not have")
	}
	s.rememberTwins()
	s.plan.Pools = []netip.Prefix{netip.MustParsePrefix("211.55.48.0/28")}
	s.openPool()
	leased, err := s.virtual.leases.Lease(real, "a.")
	if err != nil || !s.plan.Pools[0].Contains(leased) {
		t.Fatalf("%v, %v", leased, err)
	}
	if got, ok := s.virtual.leases.VIP(real); !ok || got != leased {
		t.Errorf("%v, %v", got, ok)
	}
	if got, ok := (answers{&s.virtual.leases}).Real(leased); !ok || got != real {
		t.Errorf("%v, %v", got, ok)
	}
	if info := s.virtual.leases.lease(policy.Explanation{Addr: real, Pooled: true}); info == nil || info.VIP != leased {
		t.Errorf("%+v", info)
	}
	s.closePool()
	s.openPool()
	defer s.closePool()
	if again, err := s.virtual.leases.Lease(real, "a."); err != nil || again != leased {
		t.Errorf("%v, then %v (%v)", leased, again, err)
	}
	for i := 0; err == nil; i++ {
		real = real.Next()
		_, err = s.virtual.leases.Lease(real, fmt.Sprintf("b%d.", i))
	}
	if s.watchPool(); s.notices[noticeFull] == "" || s.virtual.pool.Pools[0].Exhausted == 0 {
		t.Errorf("notices %q, %+v", s.notices, s.virtual.pool)
	}
}
