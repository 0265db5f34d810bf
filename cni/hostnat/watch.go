package hostnat

import (
	"bytes"
	"context"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// Watch calls changed when somebody may have taken something out of the network's table, in the network
// namespace of the calling thread, until ctx ends. What is added to it, with each pod, and what happens to
// other tables, is not told.
func Watch(ctx context.Context, network string, changed func()) error {
	name := tableName(network)
	return rtnl.WatchNetfilter(ctx, func(kind uint16, body []byte) {
		if kind == 0 || takesFrom(name, kind, body) {
			changed()
		}
	})
}

// takesFrom reports whether a message says that something of a table was deleted.
func takesFrom(table string, kind uint16, body []byte) (takes bool) {
	switch kind &^ (unix.NFNL_SUBSYS_NFTABLES << 8) {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET,
		unix.NFT_MSG_DELSETELEM:
	default:
		return false
	}

	visit(body, func(kind uint16, value []byte) {
		// the first attribute of all of them
		if kind == unix.NFTA_TABLE_NAME {
			takes = string(bytes.TrimRight(value, "\x00")) == table
		}
	})

	return takes
}
