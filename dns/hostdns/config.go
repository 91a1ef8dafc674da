package hostdns

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Config says how names are resolved. As a wish it is what Culvert wants of the host, and its zero
// value means "nothing of ours"; read from a host it is what the host had.
type Config struct {
	// Servers are asked in this order, on port 53. An IPv6 address may carry a zone.
	Servers []netip.Addr `json:"servers,omitempty"`
	// Search are the domains appended to short names, in this order, without a trailing dot.
	Search []string `json:"search,omitempty"`
	// Domains are the only ones the servers are asked about, where the host can route by domain;
	// resolv.conf cannot.
	Domains []string `json:"domains,omitempty"`
	// Options are the words after "options", as the host has them. A hook keeps them and takes none
	// of ours.
	Options []string `json:"options,omitempty"`
}

// IsZero reports whether c asks for nothing.
func (c Config) IsZero() bool {
	return len(c.Servers)+len(c.Search)+len(c.Domains)+len(c.Options) == 0
}

// Ndots returns the number of dots from which on the host tries a name as it is before its search list
// (resolv.conf(5)): the last ndots option's, at most 15, or 1 without one.
func (c Config) Ndots() int {
	ndots := 1
	for _, option := range c.Options {
		if text, ok := strings.CutPrefix(option, "ndots:"); ok {
			if n, err := strconv.Atoi(text); err == nil && n >= 0 {
				ndots = min(n, 15)
			}
		}
	}
	return ndots
}

// Equal reports whether c and d say the same in the same order.
func (c Config) Equal(d Config) bool {
	return slices.Equal(c.Servers, d.Servers) && slices.Equal(c.Search, d.Search) &&
		slices.Equal(c.Domains, d.Domains) && slices.Equal(c.Options, d.Options)
}

// stub are the addresses of systemd-resolved's stub, and uplinks is where it lists the
// servers behind them. Asking the stub would lead back to us: with a resolv.conf that is not its own,
// systemd-resolved takes that file's nameserver for an uplink (systemd-resolved.service(8)).
var stub = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 53}), netip.AddrFrom4([4]byte{127, 0, 0, 54})}

const uplinks = "/run/systemd/resolve/resolv.conf"

// Read returns what the resolv.conf at path says. A missing file is an empty Config: the C library
// then asks 127.0.0.1 (resolv.conf(5)), which the caller may do as well.
func Read(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("read the host's resolver configuration: %w", err)
	}
	return throughStub(Parse(data), uplinks), nil
}

// throughStub replaces the servers of a configuration that names systemd-resolved's stub by the
// servers behind the stub, where the file that lists them is there.
func throughStub(c Config, uplinks string) Config {
	if !slices.ContainsFunc(c.Servers, func(a netip.Addr) bool { return slices.Contains(stub, a) }) {
		return c
	}
	data, err := os.ReadFile(uplinks)
	if err != nil {
		return c
	}
	if behind := Parse(data); len(behind.Servers) > 0 {
		c.Servers = behind.Servers
	}
	return c
}

// Parse reads the text of a resolv.conf (resolv.conf(5)). Like the C library it skips what it does not
// understand, and of several domain and search lines the last counts.
func Parse(data []byte) Config {
	var c Config
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || !startsLine(lines.Text(), fields[0]) {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(fields[1]); err == nil {
				c.Servers = append(c.Servers, a.Unmap())
			}
		case "domain":
			c.Search = trimDots(fields[1:2])
		case "search":
			c.Search = trimDots(fields[1:])
		case "options":
			c.Options = append(c.Options, fields[1:]...)
		}
	}
	return c
}

// startsLine reports whether line begins with keyword: the C library takes no indented keyword.
func startsLine(line, keyword string) bool { return strings.HasPrefix(line, keyword) }

// trimDots drops the trailing dot of each name; the root alone stays ".".
func trimDots(names []string) []string {
	out := make([]string, 0, len(names))
	for _, n := range names {
		if t := strings.TrimSuffix(n, "."); t != "" {
			n = t
		}
		out = append(out, n)
	}
	return out
}
