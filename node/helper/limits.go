package helper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Limits bound what a user half can have routed. The zero value allows the default ranges: private
// (RFC 1918), shared (RFC 6598), unique local (RFC 4193) and class E (RFC 1112, section 4) prefixes no
// shorter than /8. Nothing but a file of root's can widen them, and no cluster.
type Limits struct {
	// Prefixes may be routed as well, whole or in part.
	Prefixes []netip.Prefix
}

// limitsFile is the form of /etc/culvert/limits.yaml:
//
//	prefixes: [203.0.113.0/24]   # public prefixes that clusters may have here
type limitsFile struct {
	Prefixes []string `yaml:"prefixes"`
}

var (
	defaultRanges = []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("fc00::/7"),
	}
	// neverRanges are refused also when a file lists them: this network, loopback, link-local,
	// multicast, broadcast (RFC 6890).
	neverRanges = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("224.0.0.0/4"),
		netip.MustParsePrefix("255.255.255.255/32"),
		netip.MustParsePrefix("::/16"), // unspecified, loopback and IPv4 in disguise
		netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("ff00::/8"),
	}
	overlayRanges = []netip.Prefix{
		netip.MustParsePrefix("240.0.0.0/4"),
		netip.MustParsePrefix("fc00::/7"),
	}
)

// minBits is the shortest prefix that can be routed.
const minBits = 8

// LoadLimits reads the limits file. A missing one means the defaults; one that others than root could
// have written is an error.
func LoadLimits(path string) (Limits, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Limits{}, nil
	}
	if err != nil {
		return Limits{}, fmt.Errorf("read the limits: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Limits{}, fmt.Errorf("read the limits: %w", err)
	}
	if uid, ok := fileOwner(info); !ok || uid != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return Limits{}, fmt.Errorf("the limits in %s count only if root alone can write them: chown root %[1]s; chmod 644 %[1]s", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return Limits{}, fmt.Errorf("read the limits: %w", err)
	}
	l, err := parseLimits(data)
	if err != nil {
		return Limits{}, fmt.Errorf("limits in %s: %w", path, err)
	}
	return l, nil
}

// parseLimits reads the text of a limits file, strictly.
func parseLimits(data []byte) (Limits, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var file limitsFile
	if err := dec.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return Limits{}, fmt.Errorf("%w (the only key is \"prefixes\", a list of prefixes)", err)
	}
	var l Limits
	for _, text := range file.Prefixes {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return Limits{}, fmt.Errorf("prefix %q: write it as 203.0.113.0/24 or 2001:db8::/32", text)
		}
		if err := checkForm(p); err != nil {
			return Limits{}, err
		}
		l.Prefixes = append(l.Prefixes, p)
	}
	return l, nil
}

// allows returns an error unless p may be routed through the tunnel.
func (l Limits) allows(p netip.Prefix) error {
	if err := checkForm(p); err != nil {
		return err
	}
	for _, r := range slices.Concat(defaultRanges, l.Prefixes) {
		if covers(r, p) {
			return nil
		}
	}
	return refuse("prefix %s is public: to allow it on this host, list it under \"prefixes\" in /etc/culvert/limits.yaml as root", p)
}

// checkForm returns an error for what can never be routed through the tunnel.
func checkForm(p netip.Prefix) error {
	if err := checkNormal(p); err != nil {
		return err
	}
	if p.Bits() < minBits {
		return refuse("prefix %s is shorter than /%d", p, minBits)
	}
	for _, n := range neverRanges {
		if n.Overlaps(p) {
			return refuse("prefix %s overlaps %s, which never goes through a tunnel", p, n)
		}
	}
	return nil
}

// checkNormal returns an error unless p is a prefix in its normal form.
func checkNormal(p netip.Prefix) error {
	if !p.IsValid() || p.Addr().Is4In6() || p.Masked() != p {
		return refuse("prefix %s is not in its normal form", p)
	}
	return nil
}

// covers reports whether all of p is in r.
func covers(r, p netip.Prefix) bool { return r.Bits() <= p.Bits() && r.Contains(p.Addr()) }
