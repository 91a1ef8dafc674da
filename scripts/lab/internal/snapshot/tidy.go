package snapshot

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// object is one object of iproute2's JSON.
type object = map[string]any

// Keys that change by themselves: the kernel's numbering, counters, lifetimes,
// and flags that follow the carrier or the neighbour.
var (
	linkNoise    = []string{"ifindex", "link_index", "stats", "stats64", "txqlen", "link_netnsid", "num_tx_queues", "num_rx_queues", "gso_max_size", "gso_max_segs", "tso_max_size", "tso_max_segs", "gro_max_size", "gso_ipv4_max_size", "gro_ipv4_max_size", "max_mtu", "min_mtu", "parentbus", "parentdev"}
	addressNoise = []string{"ifindex", "valid_life_time", "preferred_life_time", "link_index", "link_netnsid"}
	routeNoise   = []string{"expires", "age", "used", "cache", "error", "users", "ref"}
	bridgeNoise  = []string{"gc_timer", "hello_timer", "tcn_timer", "topology_change_timer"}
	flagNoise    = []string{"linkdown", "dead", "NO-CARRIER"}
)

// links prints a line for each link, by name.
func links(raw string) (string, error) {
	return lines(raw, func(o object) []string {
		drop(o, linkNoise)
		if info, ok := o["linkinfo"].(object); ok {
			if bridge, ok := info["info_data"].(object); ok {
				drop(bridge, bridgeNoise)
			}
		}
		return []string{render(o)}
	})
}

// addresses prints a line for each address of each link.
func addresses(raw string) (string, error) {
	return lines(raw, func(o object) []string {
		var list []string
		infos, _ := o["addr_info"].([]any)
		for _, info := range infos {
			if a, ok := info.(object); ok {
				drop(a, addressNoise)
				if a["stable-privacy"] == true {
					a["local"] = "random" // a link that is made anew draws another one
				}
				list = append(list, fmt.Sprintf("%v %s", o["ifname"], render(a)))
			}
		}
		return list
	})
}

// routes prints a line for each route. Left out are cached clones of IPv6 and the routes to the host's
// own link-local addresses, of which some are random: the addresses tell what there is to tell.
func routes(raw string) (string, error) {
	return lines(raw, func(o object) []string {
		if _, cached := o["cache"]; cached || ownLinkLocal(o) {
			return nil
		}
		drop(o, routeNoise)
		return []string{render(o)}
	})
}

// ownLinkLocal reports whether a route is that to a link-local address of this host.
func ownLinkLocal(route object) bool {
	dst, _ := route["dst"].(string)
	return route["table"] == localTable && strings.HasPrefix(dst, "fe80::") && dst != "fe80::/64"
}

// localTable is what `ip -N route` calls the kernel's table of own addresses.
const localTable = "255"

// lines decodes a JSON array, makes lines of each object and sorts all.
func lines(raw string, each func(object) []string) (string, error) {
	var objects []object
	if strings.TrimSpace(raw) != "" {
		if err := json.Unmarshal([]byte(raw), &objects); err != nil {
			return "", err
		}
	}
	var all []string
	for _, o := range objects {
		if len(o) > 0 { // iproute2 prints {} for what a filter left out
			all = append(all, each(o)...)
		}
	}
	slices.Sort(all)
	return join(all), nil
}

func drop(o object, keys []string) {
	for _, key := range keys {
		delete(o, key)
	}
	flags, ok := o["flags"].([]any)
	if !ok {
		return
	}
	flags = slices.DeleteFunc(flags, func(f any) bool { return slices.Contains(flagNoise, fmt.Sprint(f)) })
	slices.SortFunc(flags, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	o["flags"] = flags
}

// render prints an object with its keys sorted, the name or destination first.
func render(o object) string {
	var lead string
	for _, key := range []string{"ifname", "table", "dst", "local"} {
		if v, ok := o[key]; ok {
			lead += fmt.Sprintf("%v ", v)
		}
	}
	raw, err := json.Marshal(o) // sorts keys
	if err != nil {
		panic(err) // it came from JSON
	}
	return lead + string(raw)
}

// inOrder keeps lines and their order, which matters for rules, without blanks
// at their ends.
func inOrder(raw string) (string, error) {
	var kept []string
	for _, line := range strings.Split(raw, "\n") {
		if line = strings.TrimRight(line, " \t"); line != "" {
			kept = append(kept, line)
		}
	}
	return join(kept), nil
}

// ruleset keeps nft's order, which is that of evaluation, and drops what sets
// and maps learn by themselves: the time left of their elements.
func ruleset(raw string) (string, error) {
	words := strings.Fields
	var kept []string
	for _, line := range strings.Split(raw, "\n") {
		if strings.Contains(line, " expires ") {
			line = withoutExpiry(line)
		}
		if len(words(line)) > 0 {
			kept = append(kept, strings.TrimRight(line, " \t"))
		}
	}
	return join(kept), nil
}

// withoutExpiry removes every "expires TIME" of a line.
func withoutExpiry(line string) string {
	for {
		before, after, found := strings.Cut(line, " expires ")
		if !found {
			return line
		}
		end := strings.IndexAny(after, " ,}")
		if end < 0 {
			end = len(after)
		}
		line = before + after[end:]
	}
}

func join(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return strings.Join(list, "\n") + "\n"
}
