package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// AddElements returns the message that adds elements to a set or map, with their comments. Adding one that is
// there is success, unless it has another value.
func AddElements(s *nftables.Set, elements []nftables.SetElement) *netlink.Message {
	m := elementMessage("add elements to nftables set ", unix.NFT_MSG_NEWSETELEM, netlink.Create, s)
	return appendElements(m, elements)
}

// DeleteElements returns the message that deletes elements of a set or map.
func DeleteElements(s *nftables.Set, elements []nftables.SetElement) *netlink.Message {
	m := elementMessage("delete elements of nftables set ", unix.NFT_MSG_DELSETELEM, 0, s)
	return appendElements(m, elements)
}

// elementMessage begins a message about elements of a set.
func elementMessage(op string, kind, flags uint16, s *nftables.Set) *netlink.Message {
	const nftables = unix.NFNL_SUBSYS_NFTABLES << 8
	return netlink.NewMessage(op+s.Name, nftables|kind, flags, Header(byte(s.Table.Family))).
		String(unix.NFTA_SET_ELEM_LIST_TABLE, s.Table.Name).
		String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
}

// appendElements appends elements of sets, and of maps whose values are data.
func appendElements(m *netlink.Message, elements []nftables.SetElement) *netlink.Message {
	m.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS | unix.NLA_F_NESTED)
	for _, e := range elements {
		m.Nest(unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED)
		appendData(m, unix.NFTA_SET_ELEM_KEY, e.Key)
		if len(e.Val) > 0 {
			appendData(m, unix.NFTA_SET_ELEM_DATA, e.Val)
		}
		if e.Comment != "" {
			comment := userdata.AppendString(nil, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, e.Comment)
			m.Bytes(unix.NFTA_SET_ELEM_USERDATA, comment)
		}
		m.End()
	}
	return m.End()
}

func appendData(m *netlink.Message, kind uint16, value []byte) {
	m.Nest(kind|unix.NLA_F_NESTED).Bytes(unix.NFTA_DATA_VALUE, value).End()
}
