package hostnat

import (
	"context"

	"github.com/trivet-node/trivet/cni/nft"
)

// Watch calls changed when something may have been deleted from the network's table, in the network namespace
// of the calling thread, until ctx ends. What is added to the table, with each pod, and what happens to other
// tables, makes no call.
func Watch(ctx context.Context, network string, changed func()) error {
	return nft.WatchDeletions(ctx, tableName(network), changed)
}
