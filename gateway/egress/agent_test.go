package egress

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAgent(t *testing.T) {
	for _, row := range []struct {
		name, reals   string
		open, refused string
	}{
		{"nothing", "", "", "10.0.0.1 127.0.0.1 ::1"},
		{"the cluster", "10.130.0.0/16 fd00:130::/108", "10.130.0.1 fd00:130::9", "10.131.0.1 127.0.0.1 ::1 fd00:131::1"},
		{"loopback", "127.0.0.0/8 ::1/128", "127.0.0.1 127.255.255.254 ::1", "10.0.0.1 :: ::2 ::127.0.0.1 ::ffff:127.0.0.1 0.0.0.0"},
		{"a part of loopback", "127.0.0.53/32", "127.0.0.53", "127.0.0.1 ::1"},
		{"a prefix around loopback", "112.0.0.0/4 ::/64", "126.0.0.1 ::1:0:0:1", "127.0.0.1 ::1"},
		{"a prefix around all that is never dialled", "0.0.0.0/0 ::/0", "10.0.0.1 198.51.100.1 240.240.0.1 2001:db8::1",
			"127.0.0.1 169.254.169.254 169.254.1.1 100.100.100.200 168.63.129.16 224.0.0.1 255.255.255.255 fe80::1 ff02::1 fd00:ec2::254 ::1 64:ff9b::169.254.169.254 2002:7f00:1::1"},
		{"metadata by name", "169.254.169.254/32 fd00:ec2::254/128 fe80::/64 224.0.0.0/24", "", "169.254.169.254 fd00:ec2::254 fe80::1 224.0.0.1"},
		{"a mesh's", "240.240.0.0/16", "240.240.0.1", "240.241.0.1"},
	} {
		var reals []netip.Prefix
		for _, p := range strings.Fields(row.reals) {
			reals = append(reals, netip.MustParsePrefix(p))
		}
		s := CompileAgent(reals)
		for _, a := range strings.Fields(row.open) {
			if s.Decide(netip.MustParseAddr(a)) == Refused {
				t.Errorf("%s: %s is refused", row.name, a)
			}
		}
		for _, a := range strings.Fields(row.refused) {
			if s.Decide(netip.MustParseAddr(a)) != Refused {
				t.Errorf("%s: %s is open", row.name, a)
			}
		}
	}
}

func TestNeverOfAgent(t *testing.T) {
	for p, want := range map[string]string{
		"127.0.0.0/8": "", "127.0.0.1/32": "", "::1/128": "", "10.0.0.0/8": "", "0.0.0.0/0": "", "160.0.0.0/4": "", "240.240.0.0/16": "", "fc00::/7": "",
		"169.254.169.254/32": "cloud metadata", "169.254.0.0/16": "link-local", "169.254.7.0/24": "link-local", "fe80::/64": "link-local",
		"fd00:ec2::254/128": "metadata (AWS)", "168.63.129.16/32": "Azure", "0.0.0.0/8": "unspecified", "::/128": "unspecified", "239.0.0.0/8": "multicast", "255.255.255.255/32": "broadcast",
	} {
		if got := NeverOfAgent(netip.MustParsePrefix(p)); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", p, got, want)
		}
	}
}
