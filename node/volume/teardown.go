package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/removal"
)

// Teardown unmounts all volumes of the pod and removes the pod's directory (ROOT/pods/UID). It needs nothing
// but what is on disk and may be repeated; on an error, repeat it. What is not there is success.
func (m *Manager) Teardown(ctx context.Context, uid types.UID) error {
	if err := checkUID(uid); err != nil {
		return err
	}

	unlock, err := m.locks.Lock(ctx, uid)
	if err != nil {
		return fmt.Errorf("tear down volumes of pod %s: %w", uid, err)
	}
	defer unlock()

	m.tokens.forget(uid)
	m.mu.Lock()
	delete(m.refresh, uid)
	m.mu.Unlock()
	if _, err := os.Lstat(m.podDir(uid)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	if err := mount.UnmountBelow(m.subpathsDir(uid)); err != nil {
		return fmt.Errorf("unmount subpaths of pod %s: %w", uid, err)
	}

	if m.cfg.CSI != nil {
		if err := m.cfg.CSI.Teardown(ctx, uid); err != nil {
			return fmt.Errorf("tear down CSI volumes of pod %s: %w", uid, err)
		}
	} else if left, _ := filepath.Glob(filepath.Join(m.volumesDir(uid), "kubernetes.io~csi", "*")); len(left) > 0 {
		return fmt.Errorf("pod %s has CSI volumes, which this agent cannot unpublish", uid)
	}

	if err := m.cfg.NFS.Teardown(ctx, m.volumesDir(uid)); err != nil {
		return fmt.Errorf("tear down NFS volumes of pod %s: %w", uid, err)
	}
	if err := mount.UnmountBelow(m.podDir(uid)); err != nil {
		return fmt.Errorf("unmount volumes of pod %s: %w", uid, err)
	}

	return removal.Tree(m.podDir(uid))
}

// checkUID refuses what would lead out of the pods directory. Mirror pods have a hash in place of a UUID, so
// the form is not checked.
func checkUID(uid types.UID) error {
	if s := string(uid); s == "" || filepath.Base(s) != s || s == "." || s == ".." {
		return fmt.Errorf("pod UID %q is not a directory name", uid)
	}
	return nil
}

// Pods lists the pods that have a directory, to find those that are no more.
func (m *Manager) Pods() ([]types.UID, error) {
	entries, err := os.ReadDir(filepath.Join(m.cfg.Root, "pods"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pod directories: %w", err)
	}

	var uids []types.UID
	for _, e := range entries {
		if e.IsDir() {
			uids = append(uids, types.UID(e.Name()))
		}
	}

	return uids, nil
}

// Orphans tears down every pod directory for which keep is false. Call it when all pods of the node are
// known.
func (m *Manager) Orphans(ctx context.Context, keep func(types.UID) bool) error {
	uids, err := m.Pods()
	if err != nil {
		return err
	}
	var errs []error
	for _, uid := range uids {
		if !keep(uid) {
			errs = append(errs, m.Teardown(ctx, uid))
		}
	}
	return errors.Join(errs...)
}
