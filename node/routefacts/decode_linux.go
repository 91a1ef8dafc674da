package routefacts

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The messages decoded here are those of rtnetlink(7): a fixed header, then attributes. The library's
// own decoders stop at the first entry they do not know and lose fields the planner needs (dead next
// hops, rule actions, VRF rules), hence these.

var native = binary.NativeEndian

// attributes walks the attributes in b (struct rtattr). Values are only valid during the call.
func attributes(b []byte, visit func(kind uint16, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < unix.SizeofRtAttr {
			return fmt.Errorf("%d stray bytes behind the last attribute", len(b))
		}
		size := int(native.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return fmt.Errorf("an attribute of %d bytes where %d are left", size, len(b))
		}
		kind := native.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := visit(kind, b[unix.SizeofRtAttr:size]); err != nil {
			return err
		}
		b = b[min(len(b), align(size)):]
	}
	return nil
}

// align rounds up to the alignment of rtnetlink, 4 bytes.
func align(n int) int { return (n + 3) &^ 3 }

// header splits a message into its fixed part of size bytes and its attributes.
func header(m []byte, size int) (fixed, rest []byte, err error) {
	if len(m) < size {
		return nil, nil, fmt.Errorf("a message of %d bytes, shorter than its header of %d", len(m), size)
	}
	return m[:size], m[size:], nil
}

func uint32Of(value []byte) (uint32, error) {
	if len(value) < 4 {
		return 0, fmt.Errorf("a number of %d bytes, not 4", len(value))
	}
	return native.Uint32(value), nil
}

func addrOf(value []byte) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(value)
	if !ok {
		return netip.Addr{}, fmt.Errorf("an address of %d bytes", len(value))
	}
	return a, nil
}

// text returns a name without its trailing zero.
func text(value []byte) string {
	name, _, _ := bytes.Cut(value, []byte{0})
	return string(name)
}

// prefixOf makes a masked prefix of an address of that family. The address may be missing, as it is for
// length 0.
func prefixOf(a netip.Addr, bits, family uint8) (netip.Prefix, error) {
	switch {
	case family != unix.AF_INET && family != unix.AF_INET6:
		return netip.Prefix{}, fmt.Errorf("a prefix of address family %d", family)
	case !a.IsValid() && family == unix.AF_INET:
		a = netip.IPv4Unspecified()
	case !a.IsValid():
		a = netip.IPv6Unspecified()
	case a.Is4() != (family == unix.AF_INET):
		return netip.Prefix{}, fmt.Errorf("a prefix of family %d with the address %v", family, a)
	}
	p, err := a.Prefix(int(bits))
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("a prefix of family %d with %d bits: %w", family, bits, err)
	}
	return p, nil
}

// decodeAddress reads an RTM_NEWADDR message (struct ifaddrmsg). On a point-to-point link the local
// address is meant, with the length of the peer's prefix.
func decodeAddress(m []byte) (link int, p netip.Prefix, err error) {
	fixed, rest, err := header(m, unix.SizeofIfAddrmsg)
	if err != nil {
		return 0, netip.Prefix{}, err
	}
	var address, local netip.Addr
	err = attributes(rest, func(kind uint16, value []byte) (err error) {
		switch kind {
		case unix.IFA_ADDRESS:
			address, err = addrOf(value)
		case unix.IFA_LOCAL:
			local, err = addrOf(value)
		}
		return err
	})
	if err != nil {
		return 0, netip.Prefix{}, err
	}
	if local.IsValid() {
		address = local
	}
	if p = netip.PrefixFrom(address, int(fixed[1])); !p.IsValid() {
		return 0, netip.Prefix{}, fmt.Errorf("an address of family %d with %d bits", fixed[0], fixed[1])
	}
	return int(native.Uint32(fixed[4:])), p, nil
}
