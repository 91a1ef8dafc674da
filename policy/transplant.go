package policy

import (
	"encoding/binary"
	"net/netip"
)

// Transplant returns the address of p that has the host bits of a, which is of p's family: a with the leading bits of p
// in place of its own, and without a zone. It does not allocate.
func Transplant(a netip.Addr, p netip.Prefix) netip.Addr {
	if a.Is4() {
		from, to := a.As4(), p.Addr().As4()
		v := blend(uint64(binary.BigEndian.Uint32(from[:]))<<32, uint64(binary.BigEndian.Uint32(to[:]))<<32, p.Bits())
		binary.BigEndian.PutUint32(to[:], uint32(v>>32))
		return netip.AddrFrom4(to)
	}
	from, to := a.As16(), p.Addr().As16()
	high := blend(binary.BigEndian.Uint64(from[:8]), binary.BigEndian.Uint64(to[:8]), min(p.Bits(), 64))
	low := blend(binary.BigEndian.Uint64(from[8:]), binary.BigEndian.Uint64(to[8:]), max(p.Bits()-64, 0))
	binary.BigEndian.PutUint64(to[:8], high)
	binary.BigEndian.PutUint64(to[8:], low)
	return netip.AddrFrom16(to)
}

// blend returns the first bits of lead followed by the others of host.
func blend(host, lead uint64, bits int) uint64 {
	mask := ^uint64(0) >> bits // 0 from 64 on
	return lead&^mask | host&mask
}

// transplant returns p with the leading bits of subnet, which is not longer, in place of its own.
func transplant(p, subnet netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(Transplant(p.Addr(), subnet), p.Bits())
}
