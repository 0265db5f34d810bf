package nft

import (
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// DeletesFrom reports whether a message says that something was deleted from a table.
func DeletesFrom(table string, kind uint16, body []byte) bool {
	switch kind &^ (unix.NFNL_SUBSYS_NFTABLES << 8) {
	case unix.NFT_MSG_DELTABLE,
		unix.NFT_MSG_DELCHAIN,
		unix.NFT_MSG_DELRULE,
		unix.NFT_MSG_DELSET,
		unix.NFT_MSG_DELSETELEM:

	default:
		return false
	}

	return IsOf(table, body)
}

// IsOf reports whether a message is about something of a table.
func IsOf(table string, body []byte) bool {
	is := false
	Attributes(body, func(kind uint16, value []byte) {
		// The table's name is the first attribute of all of them.
		if kind == unix.NFTA_TABLE_NAME && netlink.Text(value) == table {
			is = true
		}
	})

	return is
}
