// Package snapshot prints a host's network state so that two snapshots of an
// unchanged host are equal byte by byte: sorted, and without anything that
// changes by itself. It is what "the host is unchanged" means in tests.
package snapshot

import (
	"context"
	"fmt"
	"strings"

	"github.com/culvert-dev/culvert/scripts/lab/internal/launch"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
)

// section is one part of a snapshot: a command run on the host and what is done
// with its output.
type section struct {
	title   string
	command []string
	tidy    func(string) (string, error)
}

var sections = []section{
	{"links", []string{"ip", "-json", "-details", "link", "show"}, links},
	{"addresses", []string{"ip", "-json", "address", "show"}, addresses},
	{"rules IPv4", []string{"ip", "-4", "-N", "rule", "show"}, inOrder},
	{"rules IPv6", []string{"ip", "-6", "-N", "rule", "show"}, inOrder},
	{"routes IPv4", []string{"ip", "-4", "-N", "-json", "route", "show", "table", "all"}, routes},
	{"routes IPv6", []string{"ip", "-6", "-N", "-json", "route", "show", "table", "all"}, routes},
	{"nftables", []string{"nft", "--stateless", "list", "ruleset"}, ruleset},
	{"xfrm policies", []string{"ip", "xfrm", "policy"}, inOrder},
	{"sysctls", append([]string{"sysctl", "--ignore"}, sysctls...), inOrder},
	{"resolver", []string{"sh", "-c", resolver}, inOrder},
}

// sysctls a tunnel may be tempted to change for the whole host.
var sysctls = []string{
	"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding",
	"net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter",
	"net.ipv4.conf.all.src_valid_mark", "net.ipv4.conf.all.route_localnet",
	"net.ipv6.conf.all.disable_ipv6", "net.ipv4.ping_group_range",
}

// resolver shows the files a resolver's configuration consists of, with type,
// mode, owner and, of links, the target.
const resolver = `for f in /etc/resolv.conf /etc/nsswitch.conf /etc/hosts /etc/resolv.conf.* /etc/.resolv.conf*; do
  [ -e "$f" ] || [ -L "$f" ] || continue
  stat --format "%N %F %a %u:%g" "$f"
  sed "s|^|    |" "$f"
done`

// Take returns the snapshot of a host.
func Take(ctx context.Context, l *state.Lab, hostName string) (string, error) {
	var out strings.Builder
	for _, s := range sections {
		raw, err := launch.Output(ctx, l, hostName, nil, s.command...)
		if err != nil {
			return "", err
		}
		tidy, err := s.tidy(raw)
		if err != nil {
			return "", fmt.Errorf("snapshot of %s, %s: %w", hostName, s.title, err)
		}
		fmt.Fprintf(&out, "== %s\n%s", s.title, tidy)
	}
	return out.String(), nil
}
