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
		if kind == 0 || nft.DeletesFrom(name, kind, body) {
			changed()
		}
	})
}
