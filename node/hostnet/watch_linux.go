package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The kernel tells of changes by multicast (rtnetlink(7), nfnetlink in uapi/linux/netfilter/).
var watched = map[int][]int{
	unix.NETLINK_ROUTE: {
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
	},
	unix.NETLINK_NETFILTER: {unix.NFNLGRP_NFTABLES},
}

// readBuffer holds any message of the kernel's about one route, rule, interface or filter rule. What
// does not fit counts as a change.
const readBuffer = 32 << 10

// Watch listens to the kernel. A kernel without nftables tells of the rest.
func (h *linuxHost) Watch(scope Scope) (<-chan struct{}, func(), error) {
	changed := make(chan struct{}, 1)
	var readers sync.WaitGroup
	var files []*os.File
	stop := func() {
		for _, f := range files {
			_ = f.Close()
		}
		readers.Wait()
	}
	for protocol, groups := range watched {
		f, err := subscribe(protocol, groups)
		if errors.Is(err, unix.EPROTONOSUPPORT) && protocol == unix.NETLINK_NETFILTER {
			continue
		}
		if err != nil {
			stop()
			return nil, nil, fmt.Errorf("watch the network of %s: %w", scope.Interface, err)
		}
		files = append(files, f)
		readers.Go(func() { follow(f, scope, changed) }) // ends when stop closes f; stop waits
	}
	return changed, stop, nil
}

// subscribe opens a netlink socket that hears groups.
func subscribe(protocol int, groups []int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, g := range groups {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen to netlink: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// follow signals what f says about the scope until f is closed. Messages that were lost because we
// were slow, or that are not understood, may have been about it.
func follow(f *os.File, scope Scope, changed chan<- struct{}) {
	buf := make([]byte, readBuffer)
	for {
		n, err := f.Read(buf)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return // closed
		}
		messages, e := syscall.ParseNetlinkMessage(buf[:n])
		concerns := err != nil || e != nil
		for _, m := range messages {
			concerns = concerns || scope.concerns(m.Header.Type, m.Data)
		}
		if !concerns {
			continue
		}
		select {
		case changed <- struct{}{}:
		default: // one is waiting already
		}
	}
}

// Sizes of the fixed parts of messages, before their attributes.
const (
	sizeofRule  = 12 // struct fib_rule_hdr (uapi/linux/fib_rules.h)
	sizeofNFGen = 4  // struct nfgenmsg (uapi/linux/netfilter/nfnetlink.h)
	linkIndexAt = 4  // in struct ifinfomsg and struct ifaddrmsg
)

// nftTableName is the number of the attribute that names the table in messages about tables, chains,
// rules, sets and their elements (uapi/linux/netfilter/nf_tables.h).
const nftTableName = 1

// concerns reports whether a message is about something of the scope: our table and the rules that
// lead to it, our interface and its addresses, our filter.
func (s Scope) concerns(kind uint16, data []byte) bool {
	switch kind {
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		return attribute32(data, sizeofRule, nl.FRA_TABLE) == uint32(s.Table())
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return attribute32(data, unix.SizeofRtMsg, unix.RTA_TABLE) == uint32(s.Table())
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return len(data) >= 8 && binary.NativeEndian.Uint32(data[linkIndexAt:]) == uint32(s.Index)
	}
	if kind>>8 == unix.NFNL_SUBSYS_NFTABLES {
		return string(attribute(data, sizeofNFGen, nftTableName)) == filterTable(s.Interface)+"\x00"
	}
	return false
}

// attribute32 returns the number in an attribute, 0 if there is none.
func attribute32(data []byte, after int, kind uint16) uint32 {
	if v := attribute(data, after, kind); len(v) == 4 {
		return binary.NativeEndian.Uint32(v)
	}
	return 0
}

// attribute returns the value of the first attribute of a kind that follows the fixed part of a
// message, nil if there is none.
func attribute(data []byte, after int, kind uint16) []byte {
	for rest := data[min(after, len(data)):]; len(rest) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < unix.SizeofRtAttr || size > len(rest) {
			return nil
		}
		if binary.NativeEndian.Uint16(rest[2:])&nl.NLA_TYPE_MASK == kind {
			return rest[unix.SizeofRtAttr:size]
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return nil
}
