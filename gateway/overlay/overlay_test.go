package overlay

import (
	"net/netip"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for prefix, want := range map[string]string{
		"245.1.2.4/32":         "",
		"240.0.0.0/4":          "broadcast",
		"246.0.0.0/8":          "",
		"255.255.255.254/31":   "broadcast",
		"255.255.255.254/32":   "",
		"224.0.0.0/3":          "not in",
		"239.255.0.0/16":       "not in",
		"10.0.0.0/8":           "not in",
		"fd7a:1::/64":          "",
		"fc00::/7":             "",
		"fc00::/6":             "not in",
		"fe80::1/128":          "not in",
		"::ffff:246.0.0.0/104": "not in",
	} {
		err := Check(netip.MustParsePrefix(prefix))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", prefix, err, want)
		}
	}
	if Check(netip.Prefix{}) == nil || Holds(netip.Prefix{}) {
		t.Error("no prefix is one")
	}
}
