package reach

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// evidence is everything that was seen of the probes to one address.
type evidence struct {
	route   Route
	sendErr error // of the last attempt to send
	out, in bool  // a probe was read from the TUN; an answer was written into it
	answer  answerKind
	from    netip.Addr    // of the answer
	rtt     time.Duration // of the answer
	// err is why the probe could not be made, or not to the end.
	err error
}

// answerKind is what the ICMP error that answers a probe says. The zero value is no answer.
type answerKind uint8

const (
	noAnswer    answerKind = iota
	expired                // time exceeded: what the gateway says of what it would forward
	delivered              // port unreachable: it got as far as the address itself
	prohibited             // a filter on the way forbids it
	unreachable            // there is no way
)

func (k answerKind) String() string {
	return [...]string{"none", "time exceeded", "port unreachable", "prohibited", "unreachable"}[k]
}

// ICMP types and codes (RFC 792, 1812; RFC 4443).
const (
	icmp4Unreachable, icmp4TimeExceeded = 3, 11
	icmp6Unreachable, icmp6TimeExceeded = 1, 3
)

// kindOf reads type and code of an ICMP error.
func kindOf(is4 bool, kind, code uint8) answerKind {
	if is4 {
		switch {
		case kind == icmp4TimeExceeded:
			return expired
		case kind != icmp4Unreachable:
			return noAnswer
		case code == 3:
			return delivered
		case code == 9, code == 10, code == 13:
			return prohibited
		}
		return unreachable
	}
	switch {
	case kind == icmp6TimeExceeded:
		return expired
	case kind != icmp6Unreachable:
		return noAnswer
	case code == 4:
		return delivered
	case code == 1, code == 5, code == 6:
		return prohibited
	}
	return unreachable
}

// judge says what the evidence shows of t, the tunnel being on iface.
func judge(iface string, t Target, e evidence) (Verdict, string) {
	switch {
	case e.route.Interface != "" && e.route.Interface != iface, e.route.Refusal != "":
		return Taken, e.route.past(iface, t.Addr)
	case e.answer != noAnswer && (e.in || e.from == t.Gateway):
		return e.answered(t)
	case e.answer != noAnswer && !e.out:
		return Taken, fmt.Sprintf("packets to %s are diverted on this host: %s answers in place of the cluster's gateway", t.Addr, e.from)
	case e.err != nil:
		return Unproven, "could not be tried: " + e.err.Error()
	case e.in:
		return Blocked, fmt.Sprintf("the cluster answers packets to %s through the tunnel, but another program's firewall on this host drops the answers", t.Addr)
	case e.out:
		return Silent, fmt.Sprintf("no answer from the cluster; packets to %s do enter the tunnel", t.Addr)
	}
	return e.lost(iface, t)
}

// answered judges an answer that came through the tunnel.
func (e evidence) answered(t Target) (Verdict, string) {
	switch e.answer {
	case prohibited:
		return Refused, "the cluster's gateway does not let this workstation reach it"
	case unreachable:
		return Silent, fmt.Sprintf("%s in the cluster says that %s is unreachable", e.from, t.Addr)
	}
	return Working, "the cluster's gateway answers"
}

// lost judges a probe that has the tunnel's route and never got there. A firewall that drops what is sent makes
// sending fail with EPERM (nf_hook_slow in net/netfilter/core.c), one behind the queueing discipline with
// ENOBUFS; one that decides later, in a program of its own, takes the packet without a word.
func (e evidence) lost(iface string, t Target) (Verdict, string) {
	switch {
	case errors.Is(e.sendErr, syscall.EPERM):
		return Blocked, "another program's firewall drops packets to it on this host"
	case e.sendErr == nil, errors.Is(e.sendErr, syscall.ENOBUFS):
		return Blocked, fmt.Sprintf("packets to %s do not get as far as %s: another program's firewall on this host drops or diverts them", t.Addr, iface)
	}
	return Unproven, fmt.Sprintf("could not be tried: send to %s: %v", t.Addr, e.sendErr)
}

// past says in words where a packet to a goes instead of into iface.
func (r Route) past(iface string, a netip.Addr) string {
	switch {
	case r.Refusal != "":
		return fmt.Sprintf("packets to %s go nowhere: this host has %s for them", a, r.Refusal)
	case r.Local:
		return fmt.Sprintf("%s is an address of this host itself", a)
	}
	var how []string
	if r.Table != 0 {
		how = append(how, fmt.Sprintf("table %d", r.Table))
	}
	if r.NextHop.IsValid() {
		how = append(how, fmt.Sprintf("next hop %s", r.NextHop))
	}
	words := ""
	if len(how) > 0 {
		words = " (" + strings.Join(how, ", ") + ")"
	}
	return fmt.Sprintf("packets to %s leave by %s%s, not by %s", a, r.Interface, words, iface)
}
