package connection

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/node/reach"
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
	return connectedTo(t, p, behindVPN())
}

// connectedTo is connected on a host with these facts.
func connectedTo(t *testing.T, p *v1alpha1.Policy, facts policy.Facts) *Session {
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
	s := &Session{kube: client, log: slog.New(slog.NewTextHandler(t.Output(), nil)), notices: notices{}, proofs: newProofs(), followed: p, iface: "culvert0", ctx: t.Context()}
	s.knowledge.policy, s.knowledge.facts = p, facts
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
		{"asks for a part of it", team("2", []string{"10.130.0.0/16"}, "10.132.0.0/16"), false, "not agreed"},
		{"gives one subnet back, and that was agreed to", team("2", []string{"10.130.0.0/16"}, "10.132.0.0/16"), true, ""},
		{"gives everything back", team("2", nil, "10.132.0.0/16"), false, ""},
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

// TestVPNThatComesAndGoes walks through what the host tells after connecting: what is left to the VPN is
// said and withheld, and comes back with its going.
func TestVPNThatComesAndGoes(t *testing.T) {
	for _, row := range []struct {
		name     string
		resolve  string
		degraded bool
	}{
		{"nothing settles it", "", true},
		{"left to the VPN by a setting", "yield", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := team("1", nil, "10.132.0.0/16")
			p.Spec.Routing.OnConflict = row.resolve
			s := connectedTo(t, p, policy.Facts{})
			if s.hostMoved(behindVPN(), true, nil); len(s.plan.AllowedIPs) != 0 {
				t.Errorf("under the VPN the tunnel still has %v", s.plan.AllowedIPs)
			}
			if got := s.notices[noticeConflicts] != ""; got != row.degraded {
				t.Errorf("degraded %v, want %v: %q", got, row.degraded, s.notices)
			}
			want := netip.MustParsePrefix("10.130.0.0/16")
			if w := withheld(s.plan); len(w) != 2 || w[0].Prefix != want || w[0].Owner != "OpenVPN on tun0" {
				t.Errorf("withheld %+v", w)
			}
			if s.hostMoved(policy.Facts{}, true, nil); len(s.plan.AllowedIPs) != 2 || s.notices[noticeConflicts] != "" || len(withheld(s.plan)) != 0 {
				t.Errorf("without the VPN: allowed %v, withheld %v, notices %q", s.plan.AllowedIPs, withheld(s.plan), s.notices)
			}
		})
	}
}

// TestHostThatCannotBeReadKeepsItsPlan: a reading that failed decides nothing.
func TestHostThatCannotBeReadKeepsItsPlan(t *testing.T) {
	s := connectedTo(t, team("1", nil, "10.132.0.0/16"), policy.Facts{})
	s.hostMoved(policy.Facts{}, false, errors.New("netlink is busy"))
	if len(s.plan.AllowedIPs) != 2 || s.notices[noticeHost] == "" {
		t.Errorf("allowed %v, notices %q", s.plan.AllowedIPs, s.notices)
	}
	if s.hostMoved(policy.Facts{}, true, nil); s.knowledge.facts.Routes != nil || len(s.plan.AllowedIPs) != 2 {
		t.Errorf("allowed %v", s.plan.AllowedIPs)
	}
}

// TestEnforcedByTheTeam: a flag that asks for more is refused, another source is cut back and says so.
func TestEnforcedByTheTeam(t *testing.T) {
	p := team("1", []string{"10.128.0.0/9"}, "10.132.0.0/16")
	p.Spec.Enforce = []string{"routing.allowConflictingSubnets"}
	s := connected(t, p)
	s.request.Environment.Routing.AllowConflictingSubnets = []string{"10.0.0.0/8"}
	settings, _, err := s.merge(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := refusedByPolicy(settings); err != nil {
		t.Errorf("the environment is refused: %v", err)
	}
	s.settings = settings
	if s.noticeNarrowed(); !strings.Contains(s.notices[noticeNarrowed], "10.0.0.0/8") {
		t.Errorf("notices %q", s.notices)
	}
	s.request.Flags.Routing.AllowConflictingSubnets = []string{"10.0.0.0/8"}
	if settings, _, err = s.merge(p); err != nil {
		t.Fatal(err)
	}
	if f := failure.Of(refusedByPolicy(settings)); f == nil || f.Code != failure.Refused || !strings.Contains(f.Text, "--allow-conflicting-subnets 10.0.0.0/8") {
		t.Errorf("a flag: %+v", f)
	}
}

// TestContestIsNamedWhileItLasts: what the helper tells of a fight becomes a warning, and goes.
func TestContestIsNamedWhileItLasts(t *testing.T) {
	s := connected(t, team("1", []string{"10.128.0.0/9"}, "10.132.0.0/16"))
	fight := helper.Contested{Kind: helper.ContestUndone, What: "keeps undoing our rule", RetryEvery: 10 * time.Second}
	s.helperNoticed(helper.Event{Contested: &fight})
	if list := s.notices.list(); len(list) != 1 || !strings.Contains(list[0], "another program keeps undoing our rule") {
		t.Errorf("notices %q", list)
	}
	fight.Over = true
	if s.helperNoticed(helper.Event{Contested: &fight}); len(s.notices.list()) != 0 {
		t.Errorf("notices %q", s.notices.list())
	}
}

// TestProofs: what does not answer is said, unless the plan has left it to others meanwhile.
func TestProofs(t *testing.T) {
	s := connected(t, team("1", []string{"10.128.0.0/9"}, "10.132.0.0/16"))
	s.state = api.Connected
	result := func(prefix string, v reach.Verdict) reach.Result {
		return reach.Result{Target: reach.Target{Prefix: netip.MustParsePrefix(prefix)}, Verdict: v, Detail: prefix + ": " + string(v)}
	}
	s.proven([]reach.Result{result("10.130.0.0/16", reach.Working), result("10.132.0.0/16", reach.Blocked), result("10.133.0.0/16", reach.Silent)})
	if list := s.notices.list(); len(list) != 1 || list[0] != "degraded: 10.132.0.0/16: blocked" {
		t.Errorf("notices %q", list)
	}
	if got := s.proofs.status(); len(got) != 3 || got[1].Verdict != "blocked" {
		t.Errorf("status %+v", got)
	}
	if s.proven([]reach.Result{result("10.130.0.0/16", reach.Working)}); len(s.notices.list()) != 0 {
		t.Errorf("notices %q", s.notices.list())
	}
}

// TestUnknownIPsecPoliciesStayThoseKnown: a reading without them gives nothing away.
func TestUnknownIPsecPoliciesStayThoseKnown(t *testing.T) {
	protect := policy.Facts{IPsec: []policy.IPsecPolicy{{Src: netip.MustParsePrefix("0.0.0.0/0"), Dst: netip.MustParsePrefix("10.0.0.0/8"), Action: policy.IPsecProtect}}}
	p := team("1", nil, "10.132.0.0/16")
	p.Spec.Routing.OnConflict = "yield"
	s := connectedTo(t, p, protect)
	if s.hostMoved(policy.Facts{}, false, nil); len(s.plan.AllowedIPs) != 0 {
		t.Errorf("not knowing took %v", s.plan.AllowedIPs)
	}
	if s.hostMoved(policy.Facts{}, true, nil); len(s.plan.AllowedIPs) != 2 {
		t.Errorf("knowing that there are none left %v", s.plan.AllowedIPs)
	}
}

// TestPolicyIsFollowedOnceNothingStandsAgainstIt: what waited for consent needs none any more when the VPN
// that it would take from is gone.
func TestPolicyIsFollowedOnceNothingStandsAgainstIt(t *testing.T) {
	s := connectedTo(t, team("1", []string{"10.130.0.0/16", "10.132.0.0/16"}, "10.132.0.0/16"), behindVPN())
	more := team("2", []string{"10.0.0.0/8"}, "10.132.0.0/16")
	s.knowledge.policy = more
	if s.takePolicy(t.Context()); s.followed == more || s.notices[noticePolicy] == "" {
		t.Fatalf("followed without consent; notices %q", s.notices)
	}
	if s.hostMoved(policy.Facts{}, true, nil); s.followed != more || s.notices[noticePolicy] != "" {
		t.Errorf("not followed when nothing is taken; notices %q", s.notices)
	}
}
