package reach

import (
	"context"
	"net/netip"
	"os"
	"syscall"
	"testing"
)

func TestJudge(t *testing.T) {
	ours := Route{Interface: "culvert0", Table: 7830}
	stranger := netip.MustParseAddr("192.0.2.1")
	send := func(errno syscall.Errno) error { return os.NewSyscallError("sendto", errno) }
	for _, row := range []struct {
		name   string
		e      evidence
		want   Verdict
		detail string
	}{
		{"answered", evidence{route: ours, out: true, in: true, answer: expired, from: gateway4}, Working, "the cluster's gateway answers"},
		{"answered by the address itself", evidence{route: ours, out: true, in: true, answer: delivered, from: netip.MustParseAddr("10.132.0.1")}, Working, "the cluster's gateway answers"},
		{"answered by the second try", evidence{route: ours, out: true, in: true, answer: expired, from: gateway4, sendErr: send(syscall.ENOBUFS)}, Working, "the cluster's gateway answers"},
		{"answered by the gateway in a form the tap does not know", evidence{route: ours, out: true, answer: expired, from: gateway4}, Working, "the cluster's gateway answers"},
		{"refused by the gateway", evidence{route: ours, out: true, in: true, answer: prohibited, from: gateway4}, Refused, "the cluster's gateway does not let this workstation reach it"},
		{"unreachable behind the gateway", evidence{route: ours, out: true, in: true, answer: unreachable, from: gateway4}, Silent, "245.1.2.11 in the cluster says that 10.132.0.1 is unreachable"},
		{"another interface", evidence{route: Route{Interface: "tun0", Table: 52, NextHop: stranger}}, Taken, "packets to 10.132.0.1 leave by tun0 (table 52, next hop 192.0.2.1), not by culvert0"},
		{"another interface, on the link", evidence{route: Route{Interface: "tun0", Table: 254}}, Taken, "packets to 10.132.0.1 leave by tun0 (table 254), not by culvert0"},
		{"another interface, nothing more known", evidence{route: Route{Interface: "tun0"}}, Taken, "packets to 10.132.0.1 leave by tun0, not by culvert0"},
		{"this host", evidence{route: Route{Interface: "lo", Table: 255, Local: true}}, Taken, "10.132.0.1 is an address of this host itself"},
		{"a blackhole", evidence{route: Route{Refusal: "a blackhole route"}}, Taken, "packets to 10.132.0.1 go nowhere: this host has a blackhole route for them"},
		{"diverted by a mark or a redirect", evidence{route: ours, answer: expired, from: stranger}, Taken, "packets to 10.132.0.1 are diverted on this host: 192.0.2.1 answers in place of the cluster's gateway"},
		{"a stranger's word about what went into the tunnel", evidence{route: ours, out: true, answer: expired, from: stranger}, Silent, "no answer from the cluster; packets to 10.132.0.1 do enter the tunnel"},
		{"dropped on the way out", evidence{route: ours, sendErr: send(syscall.EPERM)}, Blocked, "another program's firewall drops packets to it on this host"},
		{"dropped behind the queue", evidence{route: ours, sendErr: send(syscall.ENOBUFS)}, Blocked, "packets to 10.132.0.1 do not get as far as culvert0: another program's firewall on this host drops or diverts them"},
		{"taken without a word", evidence{route: ours}, Blocked, "packets to 10.132.0.1 do not get as far as culvert0: another program's firewall on this host drops or diverts them"},
		{"dropped on the way in", evidence{route: ours, out: true, in: true}, Blocked, "the cluster answers packets to 10.132.0.1 through the tunnel, but another program's firewall on this host drops the answers"},
		{"no answer", evidence{route: ours, out: true}, Silent, "no answer from the cluster; packets to 10.132.0.1 do enter the tunnel"},
		{"no answer to the first, the second dropped", evidence{route: ours, out: true, sendErr: send(syscall.EPERM)}, Silent, "no answer from the cluster; packets to 10.132.0.1 do enter the tunnel"},
		{"interrupted", evidence{route: ours, out: true, in: true, err: context.Canceled}, Unproven, "could not be tried: context canceled"},
		{"interrupted after the answer", evidence{route: ours, out: true, in: true, answer: expired, from: gateway4, err: context.Canceled}, Working, "the cluster's gateway answers"},
		{"no netlink", evidence{err: syscall.EMFILE}, Unproven, "could not be tried: too many open files"},
		{"an odd failure to send", evidence{route: ours, sendErr: send(syscall.EINVAL)}, Unproven, "could not be tried: send to 10.132.0.1: sendto: invalid argument"},
	} {
		got, detail := judge("culvert0", target("10.132.0.0/16", "10.132.0.1"), row.e)
		if got != row.want || detail != row.detail {
			t.Errorf("%s: %s, %q", row.name, got, detail)
		}
	}
}

func TestKindOf(t *testing.T) {
	for _, row := range []struct {
		is4        bool
		kind, code uint8
		want       answerKind
	}{
		{true, 11, 0, expired}, {true, 3, 3, delivered}, {true, 3, 13, prohibited}, {true, 3, 9, prohibited}, {true, 3, 10, prohibited},
		{true, 3, 1, unreachable}, {true, 3, 0, unreachable}, {true, 0, 0, noAnswer}, {true, 5, 1, noAnswer}, {true, 1, 4, noAnswer},
		{false, 3, 0, expired}, {false, 1, 4, delivered}, {false, 1, 1, prohibited}, {false, 1, 5, prohibited}, {false, 1, 6, prohibited},
		{false, 1, 0, unreachable}, {false, 1, 3, unreachable}, {false, 2, 0, noAnswer}, {false, 129, 0, noAnswer}, {false, 11, 0, noAnswer},
	} {
		if got := kindOf(row.is4, row.kind, row.code); got != row.want {
			t.Errorf("IPv4 %t, type %d code %d: %v", row.is4, row.kind, row.code, got)
		}
	}
}
