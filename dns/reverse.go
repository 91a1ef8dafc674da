package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	reverse4 = "in-addr.arpa."
	reverse6 = "ip6.arpa."
)

// reverse reports whether name lies in the reverse zone of a configured prefix.
func (c *Config) reverse(name string) bool {
	if len(c.Reverse) == 0 {
		return false
	}
	named, ok := reversePrefix(name)
	if !ok {
		return false
	}
	return slices.ContainsFunc(c.Reverse, func(p netip.Prefix) bool {
		return p.Bits() <= named.Bits() && p.Contains(named.Addr())
	})
}

// reversePrefix returns the network a reverse name stands for: the whole address of a PTR name, a shorter prefix for
// the name of a zone. Labels below the numeric ones (as DNS-SD uses, RFC 6763 section 11) are looked through.
func reversePrefix(name string) (netip.Prefix, bool) {
	if head, ok := strings.CutSuffix(name, "."+reverse4); ok {
		return digits(head, 10, 3, 8, 4)
	}
	if head, ok := strings.CutSuffix(name, "."+reverse6); ok {
		return digits(head, 16, 1, 4, 32)
	}
	return netip.Prefix{}, false
}

// digits reads at most limit labels of head from the right, each a number of width bits, as the start of an address.
func digits(head string, base, chars, width, limit int) (netip.Prefix, bool) {
	labels := strings.Split(head, ".")
	raw := make([]byte, width*limit/8)
	n := 0
	for ; n < limit && n < len(labels); n++ {
		label := labels[len(labels)-1-n]
		v, err := strconv.ParseUint(label, base, width)
		if err != nil || len(label) > chars {
			break
		}
		bit := n * width
		raw[bit/8] |= byte(v << (8 - width - bit%8))
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok || n == 0 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, n*width), true
}

// ReverseZones returns the fewest reverse zones that make up prefix, in order and absolute. A prefix that does not end
// at an octet (IPv4) or a nibble (IPv6) is made up of several: 10.128.0.0/15 of 128.10.in-addr.arpa. and
// 129.10.in-addr.arpa. An invalid prefix has none, and one shorter than a label's width yields the labels it covers.
func ReverseZones(prefix netip.Prefix) []string {
	if !prefix.IsValid() || prefix.Addr().Is4In6() {
		return nil
	}
	width := 8
	if prefix.Addr().Is6() {
		width = 4
	}
	bits := (prefix.Bits() + width - 1) / width * width
	raw := prefix.Masked().Addr().AsSlice()
	zones := make([]string, 0, 1<<(bits-prefix.Bits()))
	for i := range cap(zones) {
		if bits > 0 {
			zones = append(zones, zoneName(raw, bits, width, byte(i)))
		} else {
			zones = append(zones, zoneName(raw, 0, width, 0))
		}
	}
	return zones
}

// zoneName writes the first bits of raw as a reverse zone, with last added to the last label.
func zoneName(raw []byte, bits, width int, last byte) string {
	var b strings.Builder
	for n := bits/width - 1; n >= 0; n-- {
		bit := n * width
		v := raw[bit/8] >> (8 - width - bit%8) & (1<<width - 1)
		if n == bits/width-1 {
			v += last
		}
		if width == 8 {
			fmt.Fprintf(&b, "%d.", v)
		} else {
			fmt.Fprintf(&b, "%x.", v)
		}
	}
	if width == 8 {
		return b.String() + reverse4
	}
	return b.String() + reverse6
}
