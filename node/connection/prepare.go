package connection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/culvert-dev/culvert/dns/hostdns"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/node/routefacts"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// resolvConf is the host's resolver configuration, read before anything is changed.
const resolvConf = "/etc/resolv.conf"

// knowledge is what has to be known before anything is decided.
type knowledge struct {
	user     string
	policy   *v1alpha1.Policy
	facts    policy.Facts
	resolver hostdns.Config
}

// gather asks the API server and the host at the same time. It changes nothing anywhere. Of several
// failures it returns the one that explains most: all missing rights before the one in the way.
func gather(ctx context.Context, client *kube.Client, root *helper.Client) (knowledge, error) {
	var k knowledge
	var rights, user, team, facts, resolver error
	var work sync.WaitGroup
	work.Go(func() { rights = client.CheckRights(ctx) })
	work.Go(func() { k.user, user = client.Whoami(ctx) })
	work.Go(func() { k.policy, team = client.Policy(ctx) })
	work.Go(func() { k.facts, _, facts = readHost(ctx, root) })
	work.Go(func() { k.resolver, resolver = hostdns.Read(resolvConf) })
	work.Wait()
	return k, cmp.Or(rights, user, team, facts, resolver)
}

// readHost reads what steers packets on this host. What only root may read, the IPsec policies, is asked
// of the helper; if that is nil, it is read with the rights of this process. The facts are not whole, and
// have a warning, without it.
func readHost(ctx context.Context, root *helper.Client) (facts policy.Facts, whole bool, err error) {
	facts, err = routefacts.Read(ctx)
	if err != nil {
		return facts, false, err
	}
	ipsec, failed := helper.IPsec{}, error(nil)
	if root != nil {
		ipsec, failed = root.IPsec(ctx)
	} else {
		ipsec.Policies, ipsec.Warnings, failed = routefacts.ReadIPsec(ctx)
	}
	facts.IPsec = ipsec.Policies
	facts.Warnings = append(facts.Warnings, ipsec.Warnings...)
	if whole = failed == nil || errors.Is(failed, errors.ErrUnsupported); !whole {
		facts.Warnings = append(facts.Warnings, fmt.Sprintf("the IPsec policies of this host are not known: %v", failed))
	}
	return facts, whole, nil
}

// protected lists the addresses whose packets must keep the way they had: those that carry the
// tunnel, and the host's resolvers.
func protected(client *kube.Client, resolver hostdns.Config) []policy.Protected {
	var out []policy.Protected
	for _, a := range client.Dialled() {
		out = append(out, policy.ProtectAddr(a.Addr(), fmt.Sprintf("carries the tunnel (API server or its proxy, port %d)", a.Port())))
	}
	for _, a := range resolver.Servers {
		out = append(out, policy.ProtectAddr(a, "resolver of the host"))
	}
	return out
}

// Limits of the tunnel's MTU, in bytes of the inner IP packet: what IPv6 needs at least (RFC 8200),
// and what fits beside WireGuard's overhead over IPv6 on Ethernet.
const (
	minMTU      = 1280
	defaultMTU  = 1420
	overheadMax = 80
)

// tunnelMTU derives the MTU from the link that carries the tunnel; set is what the settings say, 0
// for nothing.
func tunnelMTU(set int, facts policy.Facts, source netip.Addr) int {
	if set != 0 {
		return set
	}
	for _, link := range facts.Links {
		for _, prefix := range link.Addresses {
			if prefix.Addr() == source && link.MTU > 0 {
				return min(defaultMTU, max(minMTU, link.MTU-overheadMax))
			}
		}
	}
	return defaultMTU
}
