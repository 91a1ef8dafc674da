package hostnet

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"

	"github.com/culvert-dev/culvert/dns/hostdns"
	"github.com/culvert-dev/culvert/policy"
)

const (
	// Protocol marks our routes and rules (rtm_protocol, rtnetlink(7)); it appears in no list of known ones.
	Protocol = 202
	// tableBase plus the number in the interface's name is our routing table.
	tableBase = 7830
	// filterPrefix plus the interface's name is our nftables table, family inet.
	filterPrefix = "culvert_"
	// aliasPrefix plus the connection's name is the interface's alias.
	aliasPrefix = policy.ConnectionAlias
	// FilterVersion names the rules of the filter; it changes with them.
	FilterVersion = "replies only"
	// maxInterfaces bounds the number in an interface's name, and so the tables we use.
	maxInterfaces = 64
)

// State is what a connection wants of the host's network. The zero State means "nothing of ours".
type State struct {
	// Interface is the TUN's name, culvertN.
	Interface string `json:"interface,omitempty"`
	// MTU of the interface in bytes of the inner IP packet.
	MTU int `json:"mtu,omitempty"`
	// Addresses of the interface, a /32 and a /128.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// Table is our routing table; 0 means the one that belongs to Interface (see [Table]).
	Table int `json:"table,omitempty"`
	// Priority of the rule that leads to Table.
	Priority Priority `json:"priority"`
	// SkipMarks are the marks of packets that the rule leaves alone.
	SkipMarks SkipMarks `json:"skipMarks,omitzero"`
	// Routes of Table.
	Routes []Route `json:"routes,omitempty"`
	// DNS is the wish for the host's resolver, carried out by package hostdns.
	DNS hostdns.Config `json:"dns"`
}

// Priority is the priority of our rule per family, 1 to 32765; 0 means no rule.
type Priority struct {
	V4 int `json:"v4,omitempty"`
	V6 int `json:"v6,omitempty"`
}

// SkipMarks are marks per family: packets that carry one of them do not enter our table.
type SkipMarks struct {
	V4 []Mark `json:"v4,omitempty"`
	V6 []Mark `json:"v6,omitempty"`
}

// Mark is a packet mark under a mask, as ip-rule(8) writes it: fwmark VALUE/MASK. The zero Mark is
// that of every packet.
type Mark struct {
	Value uint32 `json:"value"`
	Mask  uint32 `json:"mask"`
}

// IsZero reports whether m says nothing.
func (m Mark) IsZero() bool { return m == Mark{} }

func (m Mark) String() string { return fmt.Sprintf("%#x/%#x", m.Value, m.Mask) }

// Route is one route of our table.
type Route struct {
	Prefix netip.Prefix `json:"prefix"`
	// Throw makes the lookup go on with the next rule, so that Prefix keeps the route it had; else
	// Prefix goes through the interface.
	Throw bool `json:"throw,omitempty"`
}

// Scope names what is ours on the host: enough to find and remove it.
type Scope struct {
	// Interface is the TUN's name.
	Interface string
	// Index is the interface's number when it is known, else 0. An interface of that name is ours
	// if it has this number or carries our alias.
	Index int
	// Name is the connection's.
	Name string
}

// Table returns the routing table of the scope's interface.
func (s Scope) Table() int { return Table(s.Interface) }

var interfaceName = regexp.MustCompile(`^culvert(0|[1-9][0-9]?)$`)

// Number returns the N of an interface name culvertN, and whether name is one, N being below 64.
func Number(name string) (int, bool) {
	m := interfaceName.FindStringSubmatch(name)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	return n, err == nil && n < maxInterfaces
}

// Table returns the routing table that belongs to interface culvertN, 0 for another name.
func Table(name string) int {
	n, ok := Number(name)
	if !ok {
		return 0
	}
	return tableBase + n
}

// InterfaceOfTable is the inverse of [Table]; "" for a table that is not ours.
func InterfaceOfTable(table int) string {
	if n := table - tableBase; n >= 0 && n < maxInterfaces {
		return fmt.Sprintf("culvert%d", n)
	}
	return ""
}

// alias returns the interface alias of connection name.
func alias(name string) string { return aliasPrefix + name }

// filterTable returns the name of the nftables table for an interface.
func filterTable(iface string) string { return filterPrefix + iface }
