package state

import (
	"net/netip"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Options)
		want   string // in the error; empty for none
	}{
		{"defaults", func(*Options) {}, ""},
		{"unknown VPN", func(o *Options) { o.VPN = "ipsec" }, "--vpn ipsec"},
		{"no nodes", func(o *Options) { o.Nodes = 0 }, "--nodes 0"},
		{"too many nodes", func(o *Options) { o.Nodes = MaxNodes + 1 }, "--nodes"},
		{"two families without dual stack", func(o *Options) { o.Services = append(o.Services, DefaultServices6) }, "--dual-stack"},
		{"services too large", func(o *Options) { o.Services = prefixes(t, "10.128.0.0/11") }, "host bits"},
		{"pods too small for nodes", func(o *Options) { o.Pods = prefixes(t, "10.132.0.0/24") }, "each node"},
		{"pods inside services", func(o *Options) { o.Pods = prefixes(t, "10.130.0.0/18") }, "overlap"},
		{"services over the nodes", func(o *Options) { o.Services = prefixes(t, "10.50.0.0/16") }, "lab's own network"},
		{"dual stack", func(o *Options) { o.DualStack = true }, ""},
		{"dual stack with own prefixes", func(o *Options) {
			o.DualStack = true
			o.Services = prefixes(t, "10.96.0.0/16,fd00:96::/112")
		}, ""},
		{"dual stack in the wrong order", func(o *Options) {
			o.DualStack = true
			o.Services = prefixes(t, "fd00:96::/112,10.96.0.0/16")
		}, "IPv4 prefix, then"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := Defaults()
			tt.change(&o)
			err := o.Complete()
			if tt.want == "" && err != nil {
				t.Fatalf("Complete() = %v, want none", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("Complete() = %v, want an error with %q", err, tt.want)
			}
			if err == nil && o.DualStack && (len(o.Services) != 2 || len(o.Pods) != 2) {
				t.Errorf("dual stack has services %v and pods %v", o.Services, o.Pods)
			}
		})
	}
}

func prefixes(t *testing.T, list string) []netip.Prefix {
	t.Helper()
	got, err := ParsePrefixes(list)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestParsePrefixesMasks(t *testing.T) {
	got := prefixes(t, "10.1.2.3/8, fd00::1/64")
	if got[0].String() != "10.0.0.0/8" || got[1].String() != "fd00::/64" {
		t.Errorf("got %v", got)
	}
	for _, bad := range []string{"", "10.0.0.0", "10.0.0.0/33", "::ffff:10.0.0.0/104", "10.0.0.0/8,"} {
		if got, err := ParsePrefixes(bad); err == nil {
			t.Errorf("ParsePrefixes(%q) = %v, want an error", bad, got)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"lab", "a", "two-2", strings.Repeat("x", 20)} {
		if err := CheckName(good); err != nil {
			t.Errorf("CheckName(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "A", "a/b", "..", ".", "a b", strings.Repeat("x", 21)} {
		if CheckName(bad) == nil {
			t.Errorf("CheckName(%q) accepts it", bad)
		}
	}
}
