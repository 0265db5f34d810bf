package agent

import (
	"context"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/internal/lockfile"
)

// lock makes this process the only agent below the root directory: two would undo each other's work.
func lock(ctx context.Context, root string) (*os.File, error) {
	if err := os.MkdirAll(root, 0o750); err != nil {
		return nil, err
	}
	return lockfile.Take(ctx, filepath.Join(root, "trivet-node.lock"), "root directory "+root+" (--root-dir)")
}
