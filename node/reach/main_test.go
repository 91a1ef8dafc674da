package reach

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Addresses of the tests, in the form the product uses.
var (
	self4    = netip.MustParseAddr("245.1.2.10")
	self6    = netip.MustParseAddr("fd00:c0de::10")
	gateway4 = netip.MustParseAddr("245.1.2.11")
	gateway6 = netip.MustParseAddr("fd00:c0de::11")
)

// target is the target in a prefix whose address is addr.
func target(prefix, addr string) Target {
	t := Target{Prefix: netip.MustParsePrefix(prefix), Addr: netip.MustParseAddr(addr), Gateway: gateway6}
	if t.Addr.Is4() {
		t.Gateway = gateway4
	}
	return t
}
