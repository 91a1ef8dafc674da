package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/culvert-dev/culvert/dns/vip"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/policy"
)

// renderStatus writes s for people; now is the time that ages are counted to.
func renderStatus(w io.Writer, s api.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) } //nolint:errcheck // Flush tells
	row("connection", "%s: %s since %s%s", s.Name, s.State, age(now, s.Since), because(s.Reason))
	row("cluster", "%s as %s, namespace %s (%s)", cmp.Or(s.Cluster.Context, "-"), s.Cluster.User, s.Cluster.Namespace, s.Cluster.Server)
	if s.State != api.Closed {
		renderLive(row, s, now)
	}
	for _, c := range s.Conflicts {
		row("conflict", "%s", c)
	}
	for _, warning := range s.Warnings {
		row("warning", "%s", warning)
	}
	return t.Flush()
}

func renderLive(row func(name, format string, args ...any), s api.Status, now time.Time) {
	row("gateway", "pod %s, version %s", cmp.Or(s.Gateway.Pod, "-"), cmp.Or(s.Gateway.Version, "-"))
	row("carrier", "%s", carrierLine(s.Carrier))
	row("wireguard", "%s, mtu %d, handshake %s ago, received %s, sent %s", s.WireGuard.Interface, s.WireGuard.MTU,
		age(now, s.WireGuard.LastHandshake), bytesText(s.WireGuard.ReceivedBytes), bytesText(s.WireGuard.SentBytes))
	for _, route := range s.Routes {
		if isOverlay(s, route.Prefix) || isVirtual(s, route.Prefix) {
			continue
		}
		verb := "through the tunnel"
		if route.Kind != "tunnel" {
			verb = "left alone"
		}
		row("route", "%s  %s  %s", route.Prefix, verb, route.Reason)
	}
	renderVirtual(row, s.Virtual)
	row("dns", "%s answered by %s; other names by %s", strings.Join(forwardDomains(s.DNS.Domains), ", "), join(s.DNS.Server), joinPorts(s.DNS.Upstreams))
	for _, line := range cededLines(s.DNS.Ceded) {
		row("dns", "%s", line)
	}
	row("processes", "node %d, helper %d, guard %d", s.Processes.Node, s.Processes.Helper, s.Processes.Guard)
}

func carrierLine(c api.Carrier) string {
	if !c.Connected {
		return c.Name + ", down" + because(c.Error)
	}
	line := c.Name
	if c.RTTMillis > 0 {
		line += fmt.Sprintf(", round trip %.1f ms", c.RTTMillis)
	}
	if c.Redials > 0 {
		line += fmt.Sprintf(", redialled %d times", c.Redials)
	}
	return line
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func age(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return now.Sub(t).Round(time.Second).String()
}

// bytesText returns n in binary units with one digit, such as "1.5 MiB".
func bytesText(n int64) string {
	value, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}

func join[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, x := range list {
		texts[i] = x.String()
	}
	return strings.Join(texts, ", ")
}

func joinPorts(addrs []netip.AddrPort) string {
	if len(addrs) == 0 {
		return "nobody (the host had no resolver)"
	}
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.Addr().String()
		if a.Port() != 53 {
			texts[i] = a.String()
		}
	}
	return strings.Join(texts, ", ")
}

// renderConnected says in a few lines what `culvert connect` has done.
func renderConnected(w io.Writer, s api.Status) error {
	var tunnels []string
	for _, route := range s.Routes {
		if route.Kind == "tunnel" && !isOverlay(s, route.Prefix) && !isVirtual(s, route.Prefix) {
			tunnels = append(tunnels, route.Prefix.String())
		}
	}
	routes := "none"
	if len(tunnels) > 0 {
		routes = strings.Join(tunnels, ", ") + " on " + s.WireGuard.Interface
	}
	_, err := fmt.Fprintf(w, "connected to %s as %s through pod %s\n  routes  %s\n  names   %s\n",
		cmp.Or(s.Cluster.Context, s.Cluster.Server), s.Cluster.User, s.Gateway.Pod,
		routes, strings.Join(forwardDomains(s.DNS.Domains), ", "))
	if hidden := hiddenLine(s); hidden != "" && err == nil {
		_, err = fmt.Fprintf(w, "  virtual %s on %s\n", hidden, s.WireGuard.Interface)
	}
	if len(s.Yielded) > 0 && err == nil {
		_, err = fmt.Fprintf(w, "  left    %s to other networks of this host; see `culvert status`\n", join(s.Yielded))
	}
	for _, line := range cededLines(s.DNS.Ceded) {
		if err == nil {
			_, err = fmt.Fprintf(w, "  names   %s\n", line)
		}
	}
	for _, warning := range s.Warnings {
		if err == nil {
			_, err = fmt.Fprintf(w, "  warning: %s\n", warning)
		}
	}
	return err
}

// cededLines say which names are other connections', one line for each of those.
func cededLines(ceded []api.Ceded) []string {
	domains, instead := map[string][]string{}, map[string]string{}
	for _, c := range ceded {
		domains[c.Connection] = append(domains[c.Connection], c.Domain)
		instead[c.Connection] = c.Instead
	}
	var out []string
	for _, connection := range slices.Sorted(maps.Keys(domains)) {
		if names := forwardDomains(domains[connection]); len(names) > 0 {
			out = append(out, fmt.Sprintf("%s are connection %s's; here use %s", strings.Join(names, ", "), connection, instead[connection]))
		}
	}
	return out
}

// renderVirtual writes what stands for what, that in use first.
func renderVirtual(row func(name, format string, args ...any), v *api.Virtual) {
	if v == nil {
		return
	}
	for _, hidden := range []bool{true, false} {
		for _, t := range v.Twins {
			if t.Hidden == hidden && t.Virtual.IsValid() {
				row("virtual", "%s", twinLine(t, v))
			}
		}
	}
	if v.Pool == nil {
		return
	}
	for _, p := range v.Pool.Pools {
		row("pool", "%s: %d of %d virtual addresses are leased, %d could be taken back", p.Prefix, p.Leased, p.Capacity, p.Reclaimable)
	}
}

func twinLine(t api.Twin, v *api.Virtual) string {
	use := "in reserve"
	if t.Hidden {
		use = "names that lead to " + hiddenOf(t, v) + " are answered with it"
	}
	if t.Pooled {
		return fmt.Sprintf("a leased address of %s stands for each of %s %s; %s", poolOf(t, v.Pool), t.Real, t.Kind, use)
	}
	return fmt.Sprintf("%s  stands for %s %s; %s", t.Virtual, t.Real, t.Kind, use)
}

// hiddenParts is how many parts of a prefix one line names.
const hiddenParts = 4

// hiddenOf returns what of a twin's prefix is reached by virtual addresses only, as text.
func hiddenOf(t api.Twin, v *api.Virtual) string {
	var parts []string
	for _, p := range v.Hidden {
		if p.Overlaps(t.Real) && p.Bits() > t.Real.Bits() {
			parts = append(parts, p.String())
		}
	}
	switch {
	case len(parts) == 0:
		return t.Real.String()
	case len(parts) > hiddenParts:
		return fmt.Sprintf("%d parts of %s", len(parts), t.Real)
	}
	return strings.Join(parts, " and ")
}

// poolOf returns the pool of a twin's family as text.
func poolOf(t api.Twin, pool *vip.Stats) string {
	if pool != nil {
		for _, p := range pool.Pools {
			if p.Prefix.Addr().Is4() == t.Real.Addr().Is4() {
				return p.Prefix.String()
			}
		}
	}
	return "a pool"
}

// hiddenLine says for the summary of connect what is reached by virtual addresses.
func hiddenLine(s api.Status) string {
	if s.Virtual == nil {
		return ""
	}
	var parts []string
	for _, t := range s.Virtual.Twins {
		switch {
		case !t.Hidden:
		case t.Pooled:
			parts = append(parts, fmt.Sprintf("%s for %s", poolOf(t, s.Virtual.Pool), hiddenOf(t, s.Virtual)))
		default:
			parts = append(parts, fmt.Sprintf("%s for %s", t.Virtual, hiddenOf(t, s.Virtual)))
		}
	}
	return strings.Join(parts, ", ")
}

// isVirtual reports whether p is a route of virtual addresses, which are shown by what they stand for.
func isVirtual(s api.Status, p netip.Prefix) bool {
	return s.Virtual != nil && slices.ContainsFunc(s.Virtual.Subnets, p.Overlaps)
}

// isOverlay reports whether p is the gateway's own address on the link, which is nobody's business.
func isOverlay(s api.Status, p netip.Prefix) bool {
	for _, a := range s.Peer.Addresses {
		if p == netip.PrefixFrom(policy.GatewayAddr(a), a.BitLen()) {
			return true
		}
	}
	return false
}

// forwardDomains leaves out the reverse zones, which fill a screen and say what the routes say.
func forwardDomains(domains []string) []string {
	return slices.DeleteFunc(slices.Clone(domains), func(d string) bool { return strings.HasSuffix(d, ".arpa") })
}
