//go:build netns && linux

package routefacts

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/culvert-dev/culvert/policy"
)

// ipsec reads the policies or fails the test.
func ipsec(t *testing.T) []policy.IPsecPolicy {
	t.Helper()
	policies, warnings, err := ReadIPsec(context.Background())
	if err != nil || len(warnings) > 0 {
		t.Errorf("error %v, warnings %q", err, warnings)
	}
	return policies
}

// TestReadIPsec reads what ip-xfrm(8) wrote, and is told of it.
func TestReadIPsec(t *testing.T) {
	inNamespace(t, func() {
		ip(t, twoLinks)
		if got := ipsec(t); len(got) != 0 {
			t.Errorf("a new namespace has policies %+v", got)
		}
		w, err := NewIPsecWatcher()
		if running(t, w, err) == nil {
			return
		}
		ip(t, `
xfrm policy add src 192.0.2.2/32 dst 10.0.0.0/8 dir out priority 371 tmpl src 192.0.2.2 dst 192.0.2.99 proto esp mode tunnel reqid 1
xfrm policy add src 10.0.0.0/8 dst 192.0.2.2/32 dir in priority 371 tmpl src 192.0.2.99 dst 192.0.2.2 proto esp mode tunnel reqid 1
xfrm policy add src 0.0.0.0/0 dst 10.8.0.0/16 dir out priority 100 mark 5 mask 0xff if_id 7 tmpl src 192.0.2.2 dst 192.0.2.99 proto esp mode transport
xfrm policy add src ::/0 dst fd00:9::/48 dir out priority 200
xfrm policy add src ::/0 dst fd00:9::/48 proto tcp dport 443 dev eth0 dir out action block
`)
		expect(t, w, "new policies")
		pf := netip.MustParsePrefix
		want := []policy.IPsecPolicy{
			{Src: pf("192.0.2.2/32"), Dst: pf("10.0.0.0/8"), Action: policy.IPsecProtect, Priority: 371, Peer: netip.MustParseAddr("192.0.2.99")},
			{Src: pf("0.0.0.0/0"), Dst: pf("10.8.0.0/16"), Action: policy.IPsecProtect, Priority: 100, Mark: policy.Mark{Value: 5, Mask: 0xff}, IfID: 7},
			{Src: pf("::/0"), Dst: pf("fd00:9::/48"), Action: policy.IPsecBypass, Priority: 200},
			{Src: pf("::/0"), Dst: pf("fd00:9::/48"), Action: policy.IPsecDiscard, Partial: true, Link: ethIndex(t)},
		}
		if got := ipsec(t); !slices.Equal(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		ip(t, "xfrm policy flush")
		expect(t, w, "the end of all policies")
		if got := ipsec(t); len(got) != 0 {
			t.Errorf("policies %+v are left", got)
		}
	})
}

func ethIndex(t *testing.T) int {
	facts, err := Read(context.Background())
	if err != nil {
		t.Error(err)
	}
	return linkNamed(facts, "eth0").Index
}

// TestWhichIPsecPolicyHolds asks the kernel: of all that fit and have the lowest priority, the first of
// the list.
func TestWhichIPsecPolicyHolds(t *testing.T) {
	const (
		block   = "xfrm policy add src 0.0.0.0/0 dst 192.0.2.0/24 dir out action block\n"
		pass    = "xfrm policy add src 0.0.0.0/0 dst 192.0.2.0/25 dir out\n"
		host    = "xfrm policy add src 192.0.2.2/32 dst 192.0.2.9/32 dir out\n"
		later   = "xfrm policy add src 0.0.0.0/0 dst 192.0.2.0/26 dir out action block priority 9\n"
		another = "xfrm policy add src 0.0.0.0/0 dst 192.0.2.128/25 dir out action block\n"
	)
	for name, script := range map[string]string{
		"block, then pass": block + pass, "pass, then block": pass + block,
		"block, then a host": block + host, "a host, then block": host + block,
		"a lower number wins": later + pass, "elsewhere": another + pass,
	} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, func() {
				ip(t, twoLinks+script)
				best := policy.IPsecPolicy{Priority: ^uint32(0)}
				for _, p := range ipsec(t) {
					if p.Dst.Contains(netip.MustParseAddr("192.0.2.9")) && p.Priority < best.Priority {
						best = p
					}
				}
				conn, err := net.Dial("udp4", "192.0.2.9:9")
				if err == nil {
					conn.Close()
				} else if !errors.Is(err, os.ErrPermission) {
					t.Error(err)
				}
				if refused := err != nil; refused != (best.Action == policy.IPsecDiscard) {
					t.Errorf("the kernel says %v, the facts %+v", err, best)
				}
			})
		})
	}
}
