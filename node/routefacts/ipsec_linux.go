package routefacts

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// ReadIPsec returns the outbound IPsec policies of the calling thread's network namespace, of equal
// ones the one that holds first. Entries that cannot be understood are left out and become warnings.
// It needs CAP_NET_ADMIN; without it the error matches [os.ErrPermission]. A kernel without IPsec has
// no policies, which is no error.
func ReadIPsec(ctx context.Context) (policies []policy.IPsecPolicy, warnings []string, err error) {
	settled, err := untilSteady(ctx, func() (steady bool, err error) {
		policies, warnings, steady, err = readIPsecOnce()
		return steady, err
	})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the IPsec policies of this host: %w", err)
	}
	if !settled {
		warnings = append(warnings, fmt.Sprintf("the IPsec policies changed during each of %d readings; some may be missing", attempts))
	}
	return policies, warnings, nil
}

func readIPsecOnce() (policies []policy.IPsecPolicy, warnings []string, steady bool, err error) {
	r := nl.NewNetlinkRequest(nl.XFRM_MSG_GETPOLICY, unix.NLM_F_DUMP)
	r.AddRawData(make([]byte, nl.SizeofXfrmUserpolicyId))
	messages, steady, err := dump(r, unix.NETLINK_XFRM, nl.XFRM_MSG_NEWPOLICY)
	if err != nil {
		return nil, nil, false, err
	}
	policies, warnings = ipsecPolicies(messages)
	return policies, warnings, steady, nil
}

// ipsecPolicies decodes a dump. The kernel writes the latest policy first; of equals the oldest holds.
func ipsecPolicies(messages [][]byte) (policies []policy.IPsecPolicy, warnings []string) {
	var unread unread
	for _, m := range slices.Backward(messages) {
		p, use, err := decodeIPsec(m)
		if err != nil {
			unread.add("IPsec policies", err)
		} else if use {
			policies = append(policies, p)
		}
	}
	return policies, unread.sentences()
}

// Where the fields of struct xfrm_userpolicy_info and struct xfrm_user_tmpl stand (linux/xfrm.h). All
// addresses take 16 bytes, whatever their family.
const (
	selectorDst      = 0
	selectorSrc      = 16
	selectorPorts    = 32 // both ports, each with a mask
	selectorFamily   = 40
	selectorDstBits  = 42
	selectorSrcBits  = 43
	selectorProtocol = 44
	selectorLink     = 48
	policyPriority   = 152
	policyDirection  = 160
	policyAction     = 161

	templateFamily = 24
	templateMode   = 48
)

const (
	directionOut   = 1 // XFRM_POLICY_OUT
	actionAllow    = 0 // XFRM_POLICY_ALLOW
	actionBlock    = 1 // XFRM_POLICY_BLOCK
	modeTransport  = 0 // XFRM_MODE_TRANSPORT; every other mode has a peer of its own
	xfrmAddrLength = 16
)

// decodeIPsec reads an XFRM_MSG_NEWPOLICY message. use is false for policies of other directions, and
// those of single sockets.
func decodeIPsec(m []byte) (p policy.IPsecPolicy, use bool, err error) {
	fixed, rest, err := header(m, nl.SizeofXfrmUserpolicyInfo)
	if err != nil || fixed[policyDirection] != directionOut {
		return policy.IPsecPolicy{}, false, err
	}
	p = policy.IPsecPolicy{
		Priority: native.Uint32(fixed[policyPriority:]),
		Link:     int(int32(native.Uint32(fixed[selectorLink:]))),
		Partial:  fixed[selectorProtocol] != 0 || native.Uint64(fixed[selectorPorts:]) != 0,
	}
	if p.Dst, err = selectorPrefix(fixed, selectorDst, selectorDstBits); err == nil {
		p.Src, err = selectorPrefix(fixed, selectorSrc, selectorSrcBits)
	}
	protects := false
	if err == nil {
		err = attributes(rest, func(kind uint16, value []byte) (err error) {
			switch kind {
			case nl.XFRMA_TMPL:
				protects = len(value) > 0
				p.Peer, err = templatePeer(value)
			case nl.XFRMA_MARK:
				p.Mark, err = markOf(value)
			case nl.XFRMA_IF_ID:
				p.IfID, err = uint32Of(value)
			}
			return err
		})
	}
	if err == nil {
		p.Action, err = ipsecAction(fixed[policyAction], protects)
	}
	if err != nil {
		return policy.IPsecPolicy{}, false, err
	}
	if p.Action != policy.IPsecProtect {
		p.Peer = netip.Addr{}
	}
	return p, true, nil
}

func ipsecAction(action uint8, protects bool) (policy.IPsecAction, error) {
	switch {
	case action == actionBlock:
		return policy.IPsecDiscard, nil
	case action != actionAllow:
		return "", fmt.Errorf("an IPsec policy with unknown action %d", action)
	case protects:
		return policy.IPsecProtect, nil
	}
	return policy.IPsecBypass, nil
}

// selectorPrefix reads one of the two prefixes of a selector.
func selectorPrefix(fixed []byte, at, bits int) (netip.Prefix, error) {
	family := native.Uint16(fixed[selectorFamily:])
	if family > 255 {
		return netip.Prefix{}, fmt.Errorf("an IPsec policy of address family %d", family)
	}
	return prefixOf(xfrmAddr(fixed[at:], family), fixed[bits], uint8(family))
}

// xfrmAddr reads an xfrm_address_t, which must be whole; zero for a family that has no such addresses.
func xfrmAddr(b []byte, family uint16) netip.Addr {
	switch family {
	case unix.AF_INET:
		return netip.AddrFrom4([4]byte(b))
	case unix.AF_INET6:
		return netip.AddrFrom16([xfrmAddrLength]byte(b))
	}
	return netip.Addr{}
}

// templatePeer returns where the outermost of a policy's tunnels ends, that is the last one that has an
// end; zero in transport mode, and for a tunnel whose end is not known yet.
func templatePeer(b []byte) (peer netip.Addr, err error) {
	if len(b)%nl.SizeofXfrmUserTmpl != 0 {
		return netip.Addr{}, fmt.Errorf("the templates of an IPsec policy in %d bytes", len(b))
	}
	for t := range slices.Chunk(b, nl.SizeofXfrmUserTmpl) {
		if a := xfrmAddr(t, native.Uint16(t[templateFamily:])); t[templateMode] != modeTransport && a.IsValid() && !a.IsUnspecified() {
			peer = a
		}
	}
	return peer, nil
}

// markOf reads a struct xfrm_mark.
func markOf(value []byte) (policy.Mark, error) {
	if len(value) < 8 {
		return policy.Mark{}, fmt.Errorf("a mark of %d bytes, not 8", len(value))
	}
	return policy.Mark{Value: native.Uint32(value), Mask: native.Uint32(value[4:])}, nil
}
