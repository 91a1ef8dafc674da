package dns

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"

	wire "github.com/miekg/dns"
)

// answer is what is known about a question, apart from what differs between those who ask: the message's id, the
// spelling of the name, the flags copied from the query, the age of the TTLs. It does not change once made, but for
// shown.
type answer struct {
	flags  uint16    // header flags without those copied from the query
	counts [3]uint16 // records in body: answer, authority, additional
	body   []byte    // what follows the question, without the OPT record
	ttls   []uint16  // offsets in body of the TTLs to age
	opt    []byte    // the OPT record for those who sent one; nil for none
	ownOPT bool      // opt is ours: it repeats the DO bit of the query

	source      Source   // who answered; SourceNone if nobody was asked, or nobody could tell
	agents      []string // the workloads whose agents were asked; of SourceAgent the one that answered
	unreachable bool     // made here, or all that is left, because those who know did not answer
	// Of the cluster's answers: the name it was asked for, in lower case; the addresses named anywhere, some of which
	// may be hidden or withheld; and those among them that only a virtual address may stand for.
	name    string
	addrs   []netip.Addr
	excused []netip.Addr

	shown atomic.Pointer[shown] // what clients get of it, if that is something else and known

	born time.Time
	life time.Duration // from born on; 0 must not be remembered
}

func (a *answer) rcode() int { return int(a.flags & maskRcode) }

// lifetimes cap how long answers of one source are remembered, and what TTLs of theirs are passed on.
type lifetimes struct {
	positive, negative time.Duration
	capTTL             bool // TTLs passed on do not exceed the cap either
}

// parseAnswer takes apart a response to a question that ends at end; it keeps a reference to msg.
func parseAnswer(msg []byte, end int, limit lifetimes, now time.Time) (*answer, error) {
	a := &answer{flags: binary.BigEndian.Uint16(msg[2:]) &^ (flagRD | flagCD), born: now}
	for i := range a.counts {
		a.counts[i] = count(msg, section(i+1))
	}
	var opt record
	lowest, denied := uint32(1<<31-1), false
	w := walk(msg, end)
	for r, ok := w.next(); ok; r, ok = w.next() {
		if r.rtype == wire.TypeOPT {
			opt = r
			continue
		}
		a.ttls = append(a.ttls, uint16(r.ttlOffset()-end))
		lowest = min(lowest, w.ttl(r))
		if r.rtype == wire.TypeSOA && r.section == sectionAuthority {
			lowest, denied = min(lowest, w.soaMinimum(r)), true
		}
	}
	if w.err != nil {
		return nil, w.err
	}
	a.body = msg[end:w.off]
	switch {
	case opt.end == w.off && opt.section == sectionAdditional && msg[opt.start] == 0:
		a.body, a.opt = msg[end:opt.start], msg[opt.start:opt.end]
		a.counts[2]--
	case opt.end != 0:
		lowest = 0 // something follows the OPT record, as a signature would: good for one reply only
	}
	most := limit.positive
	if denied || a.denial() {
		most = limit.negative
	}
	// A denial says how long it holds in its SOA record; without one it is not remembered (RFC 2308 section 5).
	if a.lasting() && (denied || !a.denial()) {
		a.life = min(time.Duration(lowest)*time.Second, most)
	}
	if limit.capTTL {
		a.capTTLs(uint32(most / time.Second))
	}
	return a, nil
}

// lasting reports whether a is the kind of answer to remember: neither a failure nor truncated.
func (a *answer) lasting() bool {
	return a.flags&flagTC == 0 && (a.rcode() == wire.RcodeSuccess || a.rcode() == wire.RcodeNameError)
}

// denial reports whether a says that the name, or a record of the type, does not exist.
func (a *answer) denial() bool { return a.rcode() == wire.RcodeNameError || a.counts[0] == 0 }

// capTTLs lowers the TTLs that exceed seconds.
func (a *answer) capTTLs(seconds uint32) {
	for _, off := range a.ttls {
		if ttl := a.body[off:]; binary.BigEndian.Uint32(ttl) > seconds {
			binary.BigEndian.PutUint32(ttl, seconds)
		}
	}
}

// failure returns an answer without records. Unless text is "" it carries an extended error (RFC 8914).
func failure(rcode int, code uint16, text string) *answer {
	a := &answer{flags: flagQR | flagRA | uint16(rcode&maskRcode), source: SourceNone}
	a.opt, a.ownOPT = appendOPT(nil, uint8(rcode>>4), code, text), true
	return a
}

// optBytes is the size of an OPT record without options; its last two bytes are the size of those.
const optBytes = 11

// forwarderUDPBytes is the size this resolver gives as its own (RFC 9715, section 3).
const forwarderUDPBytes = 1232

// appendOPT appends an OPT record (RFC 6891 section 6.1.2), with an extended error unless text is "".
func appendOPT(dst []byte, rcodeHigh uint8, code uint16, text string) []byte {
	start := len(dst)
	dst = append(dst, 0)
	dst = binary.BigEndian.AppendUint16(dst, wire.TypeOPT)
	dst = binary.BigEndian.AppendUint16(dst, forwarderUDPBytes)
	dst = append(dst, rcodeHigh, 0, 0, 0, 0, 0)
	if text == "" {
		return dst
	}
	return appendExtendedError(dst, start, code, text)
}

// rcodeHigh returns the upper bits of the RCODE in an OPT record (RFC 6891 section 6.1.3); 0 for none.
func rcodeHigh(opt []byte) uint8 {
	if len(opt) < optBytes {
		return 0
	}
	return opt[5]
}

// appendExtendedError appends an extended error (RFC 8914 section 2) to the OPT record that begins at start and ends
// dst.
func appendExtendedError(dst []byte, start int, code uint16, text string) []byte {
	dst = binary.BigEndian.AppendUint16(dst, wire.EDNS0EDE)
	dst = binary.BigEndian.AppendUint16(dst, uint16(2+len(text)))
	dst = binary.BigEndian.AppendUint16(dst, code)
	dst = append(dst, text...)
	binary.BigEndian.PutUint16(dst[start+optBytes-2:], uint16(len(dst)-start-optBytes))
	return dst
}
