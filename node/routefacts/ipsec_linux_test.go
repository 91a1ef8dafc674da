package routefacts

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// xfrm builds the fixed part of an XFRM_MSG_NEWPOLICY message of the given selector.
func xfrm(src, dst string, direction, action byte, priority uint32) message {
	m := make(message, nl.SizeofXfrmUserpolicyInfo)
	s, d := netip.MustParsePrefix(src), netip.MustParsePrefix(dst)
	copy(m[selectorDst:], d.Addr().AsSlice())
	copy(m[selectorSrc:], s.Addr().AsSlice())
	binary.NativeEndian.PutUint16(m[selectorFamily:], familyNumber(d.Addr()))
	m[selectorDstBits], m[selectorSrcBits] = byte(d.Bits()), byte(s.Bits())
	binary.NativeEndian.PutUint32(m[policyPriority:], priority)
	m[policyDirection], m[policyAction] = direction, action
	return m
}

func familyNumber(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// template is one struct xfrm_user_tmpl.
func template(peer string, mode byte) []byte {
	b := make([]byte, nl.SizeofXfrmUserTmpl)
	a := netip.MustParseAddr(peer)
	copy(b, a.AsSlice())
	binary.NativeEndian.PutUint16(b[templateFamily:], familyNumber(a))
	b[templateMode] = mode
	return b
}

func TestDecodeIPsec(t *testing.T) {
	pf, ad := netip.MustParsePrefix, netip.MustParseAddr
	tunnel := policy.IPsecPolicy{Src: pf("192.0.2.2/32"), Dst: pf("10.0.0.0/8"), Action: policy.IPsecProtect, Priority: 371, Peer: ad("198.51.100.1")}
	some := xfrm("192.0.2.2/32", "10.0.0.0/8", 1, 0, 371).attr(nl.XFRMA_TMPL, template("198.51.100.1", 1)...)
	with := func(change func(*policy.IPsecPolicy)) policy.IPsecPolicy { p := tunnel; change(&p); return p }
	set := func(m message, at int, b ...byte) message { m = append(message{}, m...); copy(m[at:], b); return m }
	mark := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, 5), 0xff)
	for name, tc := range map[string]struct {
		m    message
		want policy.IPsecPolicy
		drop bool
		err  string
	}{
		"a tunnel to an office":         {m: some, want: tunnel},
		"inbound":                       {m: set(some, policyDirection, 0), drop: true},
		"of a socket":                   {m: set(some, policyDirection, 4), drop: true},
		"for TCP only":                  {m: set(some, selectorProtocol, 6), want: with(func(p *policy.IPsecPolicy) { p.Partial = true })},
		"for one port":                  {m: set(some, selectorPorts, 0, 53, 0xff, 0xff), want: with(func(p *policy.IPsecPolicy) { p.Partial = true })},
		"for what is routed to a link":  {m: set(some, selectorLink, binary.NativeEndian.AppendUint32(nil, 3)...), want: with(func(p *policy.IPsecPolicy) { p.Link = 3 })},
		"for marked packets":            {m: append(message{}, some...).attr(nl.XFRMA_MARK, mark...), want: with(func(p *policy.IPsecPolicy) { p.Mark = policy.Mark{Value: 5, Mask: 0xff} })},
		"of an xfrm interface":          {m: append(message{}, some...).attr32(nl.XFRMA_IF_ID, 7), want: with(func(p *policy.IPsecPolicy) { p.IfID = 7 })},
		"transport mode":                {m: xfrm("192.0.2.2/32", "10.0.0.0/8", 1, 0, 371).attr(nl.XFRMA_TMPL, template("198.51.100.1", 0)...), want: with(func(p *policy.IPsecPolicy) { p.Peer = netip.Addr{} })},
		"compressed inside a tunnel":    {m: xfrm("192.0.2.2/32", "10.0.0.0/8", 1, 0, 371).attr(nl.XFRMA_TMPL, append(template("198.51.100.1", 1), template("0.0.0.0", 0)...)...), want: tunnel},
		"a LAN is left alone":           {m: xfrm("0.0.0.0/0", "192.168.0.0/16", 1, 0, 1), want: policy.IPsecPolicy{Src: pf("0.0.0.0/0"), Dst: pf("192.168.0.0/16"), Action: policy.IPsecBypass, Priority: 1}},
		"IPv6 is dropped":               {m: xfrm("::/0", "fd00:9::1/48", 1, 1, 2), want: policy.IPsecPolicy{Src: pf("::/0"), Dst: pf("fd00:9::/48"), Action: policy.IPsecDiscard, Priority: 2}},
		"an action nobody knows":        {m: xfrm("::/0", "fd00:9::/48", 1, 2, 2), err: "unknown action 2"},
		"a family nobody knows":         {m: set(some, selectorFamily, 0, 0), err: "address family 0"},
		"half a template":               {m: xfrm("::/0", "::/0", 1, 0, 2).attr(nl.XFRMA_TMPL, template("::1", 1)[:32]...), err: "32 bytes"},
		"more bits than an address has": {m: set(some, selectorDstBits, 33), err: "33 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			got, use, err := decodeIPsec(tc.m)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want one with %q", err, tc.err)
				}
				return
			}
			if err != nil || use == tc.drop || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v, %v, %v\nwant %+v", got, use, err, tc.want)
			}
		})
	}
}

func TestIPsecPoliciesInTheOrderTheyHold(t *testing.T) {
	got, warnings := ipsecPolicies([][]byte{
		xfrm("0.0.0.0/0", "10.2.0.0/16", 1, 0, 0), xfrm("0.0.0.0/0", "10.9.0.0/16", 0, 0, 0),
		xfrm("0.0.0.0/0", "10.3.0.0/16", 1, 9, 0), xfrm("0.0.0.0/0", "10.1.0.0/16", 1, 0, 0),
	})
	if len(got) != 2 || got[0].Dst.String() != "10.1.0.0/16" || got[1].Dst.String() != "10.2.0.0/16" {
		t.Errorf("%+v, want the oldest first, which the kernel writes last", got)
	}
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "1 of the IPsec policies of this host could not be read") {
		t.Errorf("warnings %q", warnings)
	}
}

func FuzzIPsec(f *testing.F) {
	seed(f,
		xfrm("192.0.2.2/32", "10.0.0.0/8", 1, 0, 371).attr(nl.XFRMA_TMPL, template("198.51.100.1", 1)...).attr32(nl.XFRMA_IF_ID, 7),
		xfrm("::/0", "fd00:9::/48", 1, 1, 2).attr(nl.XFRMA_MARK, 1, 2, 3, 4, 5, 6, 7, 8),
	)
	f.Fuzz(func(t *testing.T, m []byte) {
		p, use, err := decodeIPsec(m)
		if !use {
			if p != (policy.IPsecPolicy{}) {
				t.Errorf("a policy of no use, error %v: %+v", err, p)
			}
			return
		}
		checkMasked(t, "policy from", p.Src)
		checkMasked(t, "policy to", p.Dst)
		if err != nil || !p.Dst.IsValid() || p.Src.Addr().Is4() != p.Dst.Addr().Is4() || p.Action == "" {
			t.Errorf("policy %+v, error %v", p, err)
		}
		if p.Peer.IsValid() && p.Action != policy.IPsecProtect {
			t.Errorf("policy %+v has a peer", p)
		}
	})
}
