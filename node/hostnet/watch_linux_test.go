package hostnet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// FuzzAttribute compares with the netlink library's parser, which builds the list of all attributes.
// That one wants the last of them padded; of other messages nothing may be read beyond the end.
func FuzzAttribute(f *testing.F) {
	f.Add(append(make([]byte, sizeofRule), 8, 0, nl.FRA_TABLE, 0, 1, 2, 3, 4), uint16(nl.FRA_TABLE))
	f.Add(append(make([]byte, sizeofRule), 5, 0, 1, 0, 'x', 0, 0, 0, 5, 0, 2, 0, 'y'), uint16(2))
	f.Add(append(make([]byte, sizeofRule), 3, 0, 1, 0), uint16(1))
	f.Fuzz(func(t *testing.T, data []byte, kind uint16) {
		if v := attribute(data, sizeofRule, kind); len(v) > max(0, len(data)-sizeofRule-unix.SizeofRtAttr) {
			t.Fatalf("%d bytes of a message of %d", len(v), len(data))
		}
		if len(data) < sizeofRule {
			return
		}
		data = append(data, make([]byte, -len(data)&3)...)
		got := attribute(data, sizeofRule, kind)
		all, err := nl.ParseRouteAttr(data[sizeofRule:])
		if err != nil {
			return
		}
		var want []byte
		for _, a := range all {
			if a.Attr.Type&nl.NLA_TYPE_MASK == kind {
				want = a.Value
				break
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("attribute %d is %x, want %x", kind, got, want)
		}
	})
}

func TestMessagesOfOthersAreNoConcern(t *testing.T) {
	scope := Scope{Interface: "culvert3", Index: 9, Name: "lab"}
	u32 := func(fixed int, kind uint16, v uint32) []byte {
		out := binary.NativeEndian.AppendUint16(make([]byte, fixed), 8)
		return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint16(out, kind), v)
	}
	text := func(fixed int, kind uint16, v string) []byte {
		out := binary.NativeEndian.AppendUint16(make([]byte, fixed), uint16(unix.SizeofRtAttr+len(v)))
		return append(binary.NativeEndian.AppendUint16(out, kind), v...)
	}
	link := func(index uint32) []byte {
		return binary.NativeEndian.AppendUint32(make([]byte, linkIndexAt), index)
	}
	const newRule = unix.NFNL_SUBSYS_NFTABLES<<8 | 6
	for name, row := range map[string]struct {
		kind uint16
		data []byte
		want bool
	}{
		"our rule":                      {unix.RTM_DELRULE, u32(sizeofRule, nl.FRA_TABLE, 7833), true},
		"another's rule":                {unix.RTM_NEWRULE, u32(sizeofRule, nl.FRA_TABLE, 52), false},
		"a rule without a table":        {unix.RTM_NEWRULE, make([]byte, sizeofRule), false},
		"our route":                     {unix.RTM_DELROUTE, u32(unix.SizeofRtMsg, unix.RTA_TABLE, 7833), true},
		"one of 100,000 routes in main": {unix.RTM_NEWROUTE, u32(unix.SizeofRtMsg, unix.RTA_TABLE, 254), false},
		"our interface":                 {unix.RTM_NEWLINK, link(9), true},
		"another interface":             {unix.RTM_NEWLINK, link(2), false},
		"an address of ours":            {unix.RTM_DELADDR, link(9), true},
		"our filter":                    {newRule, text(sizeofNFGen, nftTableName, "culvert_culvert3\x00"), true},
		"another connection's filter":   {newRule, text(sizeofNFGen, nftTableName, "culvert_culvert33\x00"), false},
		"nothing at all":                {unix.RTM_NEWLINK, nil, false},
		"another kind of message":       {unix.RTM_NEWNEIGH, link(9), false},
	} {
		if got := scope.concerns(row.kind, row.data); got != row.want {
			t.Errorf("%s: concerns us %v, want %v", name, got, row.want)
		}
	}
}
