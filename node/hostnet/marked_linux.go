package hostnet

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Marked returns everything that carries our marks.
func (h *linuxHost) Marked() ([]Scope, error) {
	found := make(map[string]Scope)
	errs := []error{h.markedLinks(found), h.markedFilters(found), h.markedTables(found)}
	out := make([]Scope, 0, len(found))
	for _, s := range found {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Scope) int { return cmp.Compare(a.Interface, b.Interface) })
	return out, errors.Join(errs...)
}

// markedLinks finds interfaces by alias.
func (h *linuxHost) markedLinks(found map[string]Scope) error {
	links, err := again(h.nl.LinkList)
	if err != nil {
		return fmt.Errorf("list the interfaces: %w", err)
	}
	for _, l := range links {
		name, marked := strings.CutPrefix(l.Attrs().Alias, aliasPrefix)
		if _, ours := Number(l.Attrs().Name); ours && marked {
			found[l.Attrs().Name] = Scope{Interface: l.Attrs().Name, Name: name}
		}
	}
	return nil
}

// markedFilters finds filters by table name.
func (h *linuxHost) markedFilters(found map[string]Scope) error {
	tables, err := filterTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		if iface, ours := strings.CutPrefix(t, filterPrefix); ours {
			note(found, iface)
		}
	}
	return nil
}

// markedTables finds rules and routes by protocol number and table.
func (h *linuxHost) markedTables(found map[string]Scope) error {
	rules, err := h.markedRules()
	for _, r := range rules {
		note(found, InterfaceOfTable(r.Table))
	}
	marked := &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Protocol: Protocol}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, e := again(func() ([]netlink.Route, error) {
			return h.nl.RouteListFiltered(family, marked, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		})
		if e != nil && !errors.Is(e, unix.EAFNOSUPPORT) {
			err = errors.Join(err, fmt.Errorf("list the routes: %w", e))
		}
		for _, r := range routes {
			note(found, InterfaceOfTable(r.Table))
		}
	}
	return err
}

// note adds an interface name, if it is one of ours, that was not found by its alias.
func note(found map[string]Scope, iface string) {
	if _, ours := Number(iface); !ours {
		return
	}
	if _, known := found[iface]; !known {
		found[iface] = Scope{Interface: iface}
	}
}
