package hostnet

import "strings"

// settings are the kernel's knobs of our interface, by family and name under /proc/sys/net/FAMILY/conf/
// (ip-sysctl). Only our interface's are set, and they go away with it.
var settings = map[string]string{
	// No IPsec policy of another VPN applies to what enters the tunnel or comes out of it.
	"ipv4/disable_xfrm":   "1",
	"ipv4/disable_policy": "1",
	"ipv6/disable_policy": "1",
	// Replies come in on the tunnel while main routes the same prefix elsewhere: strict reverse-path
	// filtering would drop them. The kernel takes the larger of this and the one for all interfaces.
	"ipv4/rp_filter": "2",
	// Nobody behind the tunnel configures this host.
	"ipv4/accept_redirects": "0",
	"ipv4/send_redirects":   "0",
	"ipv6/accept_redirects": "0",
	"ipv6/accept_ra":        "0",
	"ipv6/autoconf":         "0",
	// No link-local address (1 is "none"), hence no router solicitation and no multicast noise.
	"ipv6/addr_gen_mode": "1",
	// A host that switches IPv6 off for new interfaces still gets ours, if we have an address for it.
	disableIPv6: "0",
}

const disableIPv6 = "ipv6/disable_ipv6"

// settingPath returns the path of a setting under /proc/sys/net.
func settingPath(setting, iface string) string {
	family, name, _ := strings.Cut(setting, "/")
	return family + "/conf/" + iface + "/" + name
}
