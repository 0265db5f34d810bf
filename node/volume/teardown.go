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

// Teardown unmounts all volumes of the pod and removes the pod's directory (ROOT/pods/UID). It works from
// what is on disk alone, and is repeated after an error. Nothing to tear down is success.
func (m *Mounter) Teardown(ctx context.Context, uid types.UID) error {
	if err := checkUID(uid); err != nil {
		return err
	}

	unlock, err := m.locks.Lock(ctx, uid)
	if err != nil {
		return fmt.Errorf("tear down volumes of pod %s: %w", uid, err)
	}
	defer unlock()

	m.tokens.Forget(uid)
	if m.cfg.Certificates != nil {
		m.cfg.Certificates.Forget(uid)
	}
	if _, err := os.Lstat(m.dirs.pod(uid)); errors.Is(err, fs.ErrNotExist) {
		m.present.Drop(uid)
		return nil
	}

	// Paths in volumes first: they keep the file systems of their volumes busy.
	if err := mount.UnmountBelow(m.dirs.subpaths(uid)); err != nil {
		return fmt.Errorf("unmount subpaths of pod %s: %w", uid, err)
	}

	if m.cfg.CSI != nil {
		if err := m.cfg.CSI.Teardown(ctx, uid); err != nil {
			return fmt.Errorf("tear down CSI volumes of pod %s: %w", uid, err)
		}
	} else if hasCSIVolumes(m.dirs.volumes(uid)) {
		return fmt.Errorf("pod %s has CSI volumes, which this agent cannot unpublish", uid)
	}

	if err := m.cfg.NFS.Teardown(ctx, m.dirs.volumes(uid)); err != nil {
		return fmt.Errorf("tear down NFS volumes of pod %s: %w", uid, err)
	}

	if err := m.locals.Teardown(ctx, m.dirs.volumes(uid)); err != nil {
		return fmt.Errorf("tear down local volumes of pod %s: %w", uid, err)
	}

	// What is left needs neither a driver nor a server.
	if err := mount.UnmountBelow(m.dirs.pod(uid)); err != nil {
		return fmt.Errorf("unmount volumes of pod %s: %w", uid, err)
	}

	m.present.Drop(uid)
	return removal.Tree(m.dirs.pod(uid))
}

// hasCSIVolumes reports whether a pod has volumes of CSI drivers, as kubelet or an earlier start with CSI
// left them.
func hasCSIVolumes(dir string) bool {
	entries, err := os.ReadDir(filepath.Join(dir, "kubernetes.io~csi"))
	return err == nil && len(entries) > 0
}

// checkUID refuses a UID that would lead out of the pods directory. Static pods have a hash in place of a
// UUID, so the form is not checked.
func checkUID(uid types.UID) error {
	if s := string(uid); s == "" || filepath.Base(s) != s || s == "." || s == ".." {
		return fmt.Errorf("pod UID %q is not a directory name", uid)
	}
	return nil
}

// Pods returns the UIDs of the pods that have a directory, those of pods that no longer exist included.
func (m *Mounter) Pods() ([]types.UID, error) {
	entries, err := os.ReadDir(m.dirs.pods())
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

// Orphans tears down the directory of every pod for which keep returns false. It must not be called before
// all pods of the node are known.
func (m *Mounter) Orphans(ctx context.Context, keep func(types.UID) bool) error {
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
