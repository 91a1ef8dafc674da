//go:build netns

package helper

import (
	"net/netip"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/policy"
)

func TestKernelTellsOfIPsecPolicies(t *testing.T) {
	client := serveInProcess(t)
	if got, err := client.IPsec(t.Context()); err != nil || len(got.Policies)+len(got.Warnings) != 0 {
		t.Fatalf("%+v, %v; want none", got, err)
	}
	sh(t, "ip xfrm policy add dir out src 192.168.77.0/24 dst 10.9.0.0/16 action block priority 5")
	removed := false
	remove := func() {
		if !removed {
			sh(t, "ip xfrm policy delete dir out src 192.168.77.0/24 dst 10.9.0.0/16")
		}
		removed = true
	}
	defer remove()
	changed := func() {
		t.Helper()
		select {
		case e := <-client.Events():
			if !e.IPsecChanged {
				t.Errorf("event %+v", e)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no event")
		}
	}
	changed()
	got, err := client.IPsec(t.Context())
	if err != nil || len(got.Policies) != 1 {
		t.Fatalf("%+v, %v; want one policy", got, err)
	}
	want := policy.IPsecPolicy{
		Src: netip.MustParsePrefix("192.168.77.0/24"), Dst: netip.MustParsePrefix("10.9.0.0/16"),
		Action: policy.IPsecDiscard, Priority: 5,
	}
	if got.Policies[0] != want {
		t.Errorf("policy %+v, want %+v", got.Policies[0], want)
	}
	remove()
	changed()
	if got, err := client.IPsec(t.Context()); err != nil || len(got.Policies) != 0 {
		t.Errorf("%+v, %v; want none", got, err)
	}
}
