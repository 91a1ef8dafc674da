package hostnet

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// The filter, in the words of nft(8), for interface culvert0:
//
//	table inet culvert_culvert0 {
//		chain input {
//			type filter hook input priority filter; policy accept;
//			iifname != "culvert0" accept comment "not from the tunnel"
//			ct direction reply ct state established accept comment "replies to what this host opened"
//			meta l4proto icmp ct state related accept comment "ICMP errors about that"
//			meta l4proto ipv6-icmp ct state related accept comment "ICMPv6 errors about that"
//			drop comment "nothing in the cluster opens a connection to this host"
//		}
//		chain forward { type filter hook forward ...; the same, for what this host forwards }
//	}
//
// "related" alone would also let in what a connection tracking helper expects, such as FTP's data
// connections. The names match before the interface exists, so the filter comes first and goes last.
type filterRule struct {
	comment string
	exprs   []expr.Any
}

// filterRules returns the rules of either chain.
func filterRules(iface string) []filterRule {
	accept, drop := &expr.Verdict{Kind: expr.VerdictAccept}, &expr.Verdict{Kind: expr.VerdictDrop}
	related := ctState(expr.CtStateBitRELATED)
	return []filterRule{
		{"not from the tunnel", append(notFrom(iface), accept)},
		{"replies to what this host opened", append(append(isReply(), ctState(expr.CtStateBitESTABLISHED)...), accept)},
		{"ICMP errors about that", append(append(l4proto(unix.IPPROTO_ICMP), related...), accept)},
		{"ICMPv6 errors about that", append(append(l4proto(unix.IPPROTO_ICMPV6), related...), accept)},
		{"nothing in the cluster opens a connection to this host", []expr.Any{drop}},
	}
}

// notFrom matches packets that came in on another interface.
func notFrom(iface string) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, iface)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: name},
	}
}

// isReply matches packets against the direction in which their flow was opened (IP_CT_DIR_REPLY is 1).
func isReply() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
	}
}

// ctState matches packets whose connection tracking state is one of bits.
func ctState(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: binaryutil.NativeEndian.PutUint32(0),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
}

// l4proto matches packets of one transport protocol.
func l4proto(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
	}
}

// filterHooks are our chains and where they hook in.
var filterHooks = map[string]*nftables.ChainHook{
	"input":   nftables.ChainHookInput,
	"forward": nftables.ChainHookForward,
}

// addFilter puts the filter in place, replacing an incomplete one, in one transaction.
func addFilter(iface string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: filterTable(iface)}
	conn.AddTable(table) // so that the deletion finds one
	conn.DelTable(table)
	conn.AddTable(table)
	policy := nftables.ChainPolicyAccept
	for _, name := range []string{"input", "forward"} {
		chain := conn.AddChain(&nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: filterHooks[name], Priority: nftables.ChainPriorityFilter, Policy: &policy,
		})
		for _, r := range filterRules(iface) {
			conn.AddRule(&nftables.Rule{
				Table: table, Chain: chain, Exprs: r.exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment),
			})
		}
	}
	return conn.Flush()
}

// deleteFilter removes the filter; a missing one is fine.
func deleteFilter(iface string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: filterTable(iface)})
	return unlessIs(conn.Flush(), unix.ENOENT)
}

// readFilter reports whether there is a table of ours, and its version if all of it is in place.
func readFilter(iface string) (version string, exists bool, err error) {
	names, err := filterTables()
	if err != nil || !slices.Contains(names, filterTable(iface)) {
		return "", false, err
	}
	conn, err := nftables.New()
	if err != nil {
		return "", true, fmt.Errorf("open nftables: %w", err)
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return "", true, fmt.Errorf("list nftables chains: %w", err)
	}
	whole := 0
	for _, c := range chains {
		hook := filterHooks[c.Name]
		if c.Table.Name != filterTable(iface) || hook == nil || c.Hooknum == nil || *c.Hooknum != *hook {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return "", true, fmt.Errorf("list nftables rules of %s: %w", c.Table.Name, err)
		}
		if slices.EqualFunc(rules, filterRules(iface), sameRule) {
			whole++
		}
	}
	if whole == len(filterHooks) {
		version = FilterVersion
	}
	return version, true, nil
}

// sameRule compares a rule read back with one of ours, by its comment.
func sameRule(have *nftables.Rule, want filterRule) bool {
	comment, ok := userdata.GetString(have.UserData, userdata.TypeComment)
	return ok && comment == want.comment && len(have.Exprs) == len(want.exprs)
}

// filterTables returns the names of the inet tables on this host. A kernel without nftables has none.
func filterTables() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	var names []string
	for _, t := range tables {
		names = append(names, t.Name)
	}
	return names, nil
}
