package connection

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// team returns a Policy whose spec allows these conflicts, of a cluster with one service and these pod
// subnets.
func team(version string, allow []string, pods ...string) *v1alpha1.Policy {
	p := &v1alpha1.Policy{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "culvert", ResourceVersion: version}}
	p.Spec.Routing.AllowConflictingSubnets = allow
	p.Status.ClusterUID = "uid"
	p.Status.Subnets.Services = []v1alpha1.Subnet{{CIDR: "10.130.0.0/16", Source: "test"}}
	for _, cidr := range pods {
		p.Status.Subnets.Pods = append(p.Status.Subnets.Pods, v1alpha1.Subnet{CIDR: cidr, Source: "test"})
	}
	return p
}

// behindVPN are the facts of a host whose VPN routes 10.0.0.0/8.
func behindVPN() policy.Facts {
	p := netip.MustParsePrefix("10.0.0.0/8")
	return policy.Facts{
		Links:  []policy.Link{{Index: 7, Name: "tun0", Kind: "tun", Up: true, MTU: 1500}},
		Routes: []policy.Route{{Prefix: p, Table: policy.TableMain, NextHops: []policy.NextHop{{Link: 7}}}},
		Rules:  []policy.Rule{{Family: policy.IPv4, Priority: 32766, Table: policy.TableMain}},
	}
}

// connected returns a session that follows p on a host with a VPN, as far as deciding goes.
func connected(t *testing.T, p *v1alpha1.Policy) *Session {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"k","cluster":{"server":"https://192.0.2.1"}}],"contexts":[{"name":"c","context":{"cluster":"k","user":""}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kube.Load(kube.Options{Kubeconfig: path})
	if err != nil {
		t.Fatal(err)
	}
	s := &Session{kube: client, log: slog.New(slog.NewTextHandler(t.Output(), nil)), notices: notices{}, followed: p, iface: "culvert0"}
	s.knowledge.policy, s.knowledge.facts = p, behindVPN()
	s.request.TrustPolicy = true
	if s.settings, s.cluster, err = s.merge(p); err != nil {
		t.Fatal(err)
	}
	if err := s.consent(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.setPlan(policy.NewPlan(s.planInput(s.settings, s.cluster)))
	if open := s.plan.Unsettled(); len(open) > 0 {
		t.Fatalf("not connected: %+v", open)
	}
	return s
}

func TestChangedPolicy(t *testing.T) {
	both := []string{"10.128.0.0/9"}
	for _, row := range []struct {
		name    string
		changed *v1alpha1.Policy
		agreed  bool   // to what it asks for
		why     string // not; "" means that it is followed
	}{
		{"another pod subnet", team("2", both, "10.132.0.0/16", "10.133.0.0/16"), false, ""},
		{"takes more", team("2", []string{"10.0.0.0/8"}, "10.132.0.0/16"), false, "not agreed"},
		{"takes more, and that was agreed to", team("2", []string{"10.0.0.0/8"}, "10.132.0.0/16"), true, ""},
		{"gives one subnet back", team("2", []string{"10.130.0.0/16"}, "10.132.0.0/16"), true, "give 10.132.0.0/16 back"},
		{"gives everything back", team("2", nil, "10.132.0.0/16"), false, "back to 10.0.0.0/8"},
		{"is no CIDR", team("2", []string{"ten"}, "10.132.0.0/16"), false, "ten"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := connected(t, team("1", both, "10.132.0.0/16"))
			s.knowledge.policy = row.changed
			if row.agreed {
				settings, cluster, err := s.merge(row.changed)
				if err != nil {
					t.Fatal(err)
				}
				if err := rememberConsent(policy.ConsentNeeded(s.planInput(settings, cluster)).Hash); err != nil {
					t.Fatal(err)
				}
			}
			_, _, _, err := s.candidate(row.changed)
			if (err == nil) != (row.why == "") || err != nil && !strings.Contains(err.Error(), row.why) {
				t.Errorf("%v, want %q", err, row.why)
			}
		})
	}
}

func TestPolicyThatTheGatewayFindsWrongIsNotFollowed(t *testing.T) {
	s := connected(t, team("1", []string{"10.128.0.0/9"}, "10.132.0.0/16"))
	changed := team("2", []string{"10.128.0.0/9"}, "10.132.0.0/16")
	changed.Status.Problems = []string{"spec.routing: wrong"}
	if _, _, _, err := s.candidate(changed); err == nil || !strings.Contains(err.Error(), "spec.routing: wrong") {
		t.Errorf("%v", err)
	}
	if s.usablePolicy(changed) != nil {
		t.Error("it is used at connect")
	}
}

func TestWhatNobodyAgreedToIsNotTakenWhenAVPNStarts(t *testing.T) {
	s := connected(t, team("1", []string{"10.128.0.0/9"}, "10.132.0.0/16"))
	s.trusted = "" // the VPN was off, so nobody was asked
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	plan := policy.NewPlan(s.planInput(s.agreedOnly(s.settings, s.cluster), s.cluster))
	if len(plan.Unsettled()) != 2 || s.notices[noticeConsent] == "" {
		t.Errorf("unsettled %+v, notices %v", plan.Unsettled(), s.notices)
	}
}
