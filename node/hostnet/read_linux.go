package hostnet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Read returns what is ours.
func (h *linuxHost) Read(scope Scope) (Actual, error) {
	var a Actual
	var errs [4]error
	a.Link, errs[0] = h.readLink(scope)
	a.Routes, errs[1] = h.readRoutes(scope)
	a.Rules, errs[2] = h.readRules(scope)
	a.Filter, a.FilterTable, errs[3] = readFilter(scope.Interface)
	return a, errors.Join(errs[:]...)
}

// readLink returns the interface as it is, nil if there is none of ours.
func (h *linuxHost) readLink(scope Scope) (*Link, error) {
	link, err := h.link(scope)
	if link == nil {
		return nil, err
	}
	l := &Link{MTU: link.Attrs().MTU, Up: link.Attrs().Flags&net.FlagUp != 0, Settings: readSettings(scope.Interface)}
	addrs, err := again(func() ([]netlink.Addr, error) { return h.nl.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", scope.Interface, err)
	}
	for _, a := range addrs {
		if p, ok := prefix(a.IPNet); ok && !p.Addr().IsLinkLocalUnicast() {
			l.Addresses = append(l.Addresses, p)
		}
	}
	return l, nil
}

// readSettings returns the settings this kernel has.
func readSettings(iface string) map[string]string {
	out := make(map[string]string, len(settings))
	for name := range settings {
		data, err := os.ReadFile(filepath.Join(sysctlDir, settingPath(name, iface)))
		if err == nil {
			out[name] = strings.TrimSpace(string(data))
		}
	}
	return out
}

// readRoutes returns the marked routes of our table.
func (h *linuxHost) readRoutes(scope Scope) ([]Route, error) {
	routes, err := h.tableRoutes(scope.Table())
	if err != nil {
		return nil, err
	}
	var out []Route
	for _, r := range routes {
		if p, ok := prefix(r.Dst); ok && r.Protocol == Protocol {
			out = append(out, Route{Prefix: p, Throw: r.Type == unix.RTN_THROW})
		}
	}
	return out, nil
}

// tableRoutes returns all routes of a table.
func (h *linuxHost) tableRoutes(table int) ([]netlink.Route, error) {
	var out []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := again(func() ([]netlink.Route, error) {
			return h.tables.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		})
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.ENOENT) { // no such table
			return nil, fmt.Errorf("list the routes of table %d: %w", table, err)
		}
		out = append(out, routes...)
	}
	return out, nil
}

// readRules returns the marked rules that lead to our table.
func (h *linuxHost) readRules(scope Scope) ([]Rule, error) {
	rules, err := h.markedRules()
	if err != nil {
		return nil, err
	}
	var out []Rule
	for _, r := range rules {
		if r.Table == scope.Table() {
			out = append(out, Rule{IPv6: r.Family == unix.AF_INET6, Priority: r.Priority, Mark: markOf(r), Not: r.Invert})
		}
	}
	return out, nil
}

// markOf converts at the edge.
func markOf(r netlink.Rule) Mark {
	if r.Mask == nil {
		return Mark{}
	}
	return Mark{Value: r.Mark, Mask: *r.Mask}
}

// markedRules returns the rules with our protocol number.
func (h *linuxHost) markedRules() ([]netlink.Rule, error) {
	var out []netlink.Rule
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := again(func() ([]netlink.Rule, error) { return h.nl.RuleList(family) })
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, fmt.Errorf("list the policy rules: %w", err)
		}
		for _, r := range rules {
			if r.Protocol == Protocol {
				out = append(out, r)
			}
		}
	}
	return out, nil
}

// again repeats a listing that the kernel reports as interrupted by a change.
func again[T any](list func() ([]T, error)) (out []T, err error) {
	for range 10 {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}
