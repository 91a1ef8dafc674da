package dnsforward

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Resolver is what the gateway needs of its pod's /etc/resolv.conf.
type Resolver struct {
	Servers []netip.AddrPort
	Search  []string
}

// ReadResolver reads the file at path, in the form of resolv.conf(5). Nameservers at one of the
// addresses in own are left out: asking oneself never ends.
func ReadResolver(path string, own []netip.Addr) (Resolver, error) {
	cfg, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return Resolver{}, fmt.Errorf("read nameservers: %w", err)
	}
	port, err := strconv.ParseUint(cfg.Port, 10, 16)
	if err != nil {
		return Resolver{}, fmt.Errorf("read nameservers of %s: port %q: %w", path, cfg.Port, err)
	}
	r := Resolver{Search: cfg.Search}
	for _, s := range cfg.Servers {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return Resolver{}, fmt.Errorf("read nameservers of %s: %w", path, err)
		}
		if a = a.Unmap(); !slices.Contains(own, a) {
			r.Servers = append(r.Servers, netip.AddrPortFrom(a, uint16(port)))
		}
	}
	return r, nil
}

// ClusterDomain returns the DNS suffix of services, which the kubelet puts into every pod's search
// list as "svc.SUFFIX"; "cluster.local" if it is not there.
func (r Resolver) ClusterDomain() string {
	for _, s := range r.Search {
		if suffix, ok := strings.CutPrefix(strings.ToLower(strings.Trim(s, ".")), "svc."); ok && suffix != "" {
			return suffix
		}
	}
	return "cluster.local"
}
