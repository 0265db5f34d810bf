package nft

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// WatchDeletions calls changed when something may have been deleted from a table, in the network namespace of
// the calling thread, until ctx ends. What is added to the table, and what happens to others, makes no call.
func WatchDeletions(ctx context.Context, table string, changed func()) error {
	groups := netlink.Group(unix.NFNLGRP_NFTABLES)
	return netlink.Watch(ctx, netlink.Netfilter, groups, func(kind uint16, body []byte) {
		// Kind 0 means that anything may have changed.
		if kind == 0 || DeletesFrom(table, kind, body) {
			changed()
		}
	})
}

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
