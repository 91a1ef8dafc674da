package dns

import (
	"encoding/binary"
	"errors"

	wire "github.com/miekg/dns"
)

const headerBytes = 12

// Header bits (RFC 1035 section 4.1.1, RFC 4035 section 3.1.6).
const (
	flagQR     = 1 << 15
	maskOpcode = 15 << 11
	flagAA     = 1 << 10
	flagTC     = 1 << 9
	flagRD     = 1 << 8
	flagRA     = 1 << 7
	flagAD     = 1 << 5
	flagCD     = 1 << 4
	maskRcode  = 15
)

var errMalformed = errors.New("malformed DNS message")

// section counts as the header does: the question's count comes first.
type section int

const (
	sectionAnswer section = iota + 1
	sectionAuthority
	sectionAdditional
)

// record is where one resource record lies in a message.
type record struct {
	section           section
	start, rdata, end int // offsets of the owner name, of the data and of what follows
	rtype             uint16
}

// ttlOffset is where the record's TTL lies: before the length of its data.
func (r record) ttlOffset() int { return r.rdata - 6 }

// walker steps through the resource records of a message without unpacking them. It checks what it passes over: names
// end, compression pointers point backwards, data lies inside the message. It never allocates.
type walker struct {
	msg  []byte
	off  int
	left [4]uint16 // records not yet seen, by section
	cur  section
	err  error
}

// walk starts at the first record of msg, whose questions end at off.
func walk(msg []byte, off int) walker {
	w := walker{msg: msg, off: off, cur: sectionAnswer}
	for s := sectionAnswer; s <= sectionAdditional; s++ {
		w.left[s] = count(msg, s)
	}
	return w
}

// next returns the next record, or false at the end or at the first malformed record; then w.err is set.
func (w *walker) next() (record, bool) {
	for w.cur <= sectionAdditional && w.left[w.cur] == 0 {
		w.cur++
	}
	if w.cur > sectionAdditional || w.err != nil {
		return record{}, false
	}
	end, ok := skipName(w.msg, w.off)
	if !ok || end+10 > len(w.msg) {
		w.err = errMalformed
		return record{}, false
	}
	r := record{section: w.cur, start: w.off, rdata: end + 10, rtype: binary.BigEndian.Uint16(w.msg[end:])}
	r.end = r.rdata + int(binary.BigEndian.Uint16(w.msg[end+8:]))
	if r.end > len(w.msg) {
		w.err = errMalformed
		return record{}, false
	}
	w.left[w.cur]--
	w.off = r.end
	return r, true
}

// ttl returns the record's TTL in seconds; one with the top bit set counts as 0 (RFC 2181 section 8).
func (w *walker) ttl(r record) uint32 {
	v := binary.BigEndian.Uint32(w.msg[r.ttlOffset():])
	if v > 1<<31-1 {
		return 0
	}
	return v
}

// soaMinimum returns the last field of an SOA record, the TTL of negative answers (RFC 2308 section 4).
func (w *walker) soaMinimum(r record) uint32 {
	if r.rtype != wire.TypeSOA || r.end-r.rdata < 22 {
		return 0
	}
	return binary.BigEndian.Uint32(w.msg[r.end-4:])
}

// skipName returns the offset after the name at off.
func skipName(msg []byte, off int) (int, bool) {
	for length := 0; off < len(msg); {
		switch c := int(msg[off]); {
		case c == 0:
			return off + 1, true
		case c < 64:
			off += c + 1
			if length += c + 1; length >= 255 {
				return 0, false
			}
		case c >= 0xC0 && off+1 < len(msg):
			target := (c&0x3F)<<8 | int(msg[off+1])
			return off + 2, target < off && target >= headerBytes
		default:
			return 0, false
		}
	}
	return 0, false
}

func count(msg []byte, s section) uint16 { return binary.BigEndian.Uint16(msg[4+2*int(s):]) }

func setCount(msg []byte, s section, n uint16) { binary.BigEndian.PutUint16(msg[4+2*int(s):], n) }
