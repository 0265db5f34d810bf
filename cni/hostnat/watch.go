package hostnat

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
)

// Watch calls changed when something may have been deleted from the network's table, in the network namespace
// of the calling thread, until ctx ends. What is added to the table, with each pod, and what happens to other
// tables, makes no call.
func Watch(ctx context.Context, network string, changed func()) error {
	name := tableName(network)
	groups := netlink.Group(unix.NFNLGRP_NFTABLES)
	return netlink.Watch(ctx, netlink.Netfilter, groups, func(kind uint16, body []byte) {
		// Kind 0 means that anything may have changed.
		if kind == 0 || deletesFrom(name, kind, body) {
			changed()
		}
	})
}

// deletesFrom reports whether a message says that something was deleted from a table.
func deletesFrom(table string, kind uint16, body []byte) bool {
	switch kind &^ (unix.NFNL_SUBSYS_NFTABLES << 8) {
	case unix.NFT_MSG_DELTABLE,
		unix.NFT_MSG_DELCHAIN,
		unix.NFT_MSG_DELRULE,
		unix.NFT_MSG_DELSET,
		unix.NFT_MSG_DELSETELEM:

	default:
		return false
	}

	deletes := false
	nft.Attributes(body, func(kind uint16, value []byte) {
		// The table's name is the first attribute of all of them.
		if kind == unix.NFTA_TABLE_NAME && netlink.Text(value) == table {
			deletes = true
		}
	})

	return deletes
}
