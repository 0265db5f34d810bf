// Package rootfs makes container root file systems: an overlayfs mount of an image's layers and a writable
// directory, or a read-only one for image volumes. Each is found again after kill -9 and gone after a reboot.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/removal"
)

// Config says where root file systems live.
type Config struct {
	Dir      string // writable layers, e.g. /var/lib/trivet/cri/rootfs; not on overlayfs
	StateDir string // boot-scoped: records and mount points, e.g. /run/trivet/cri/rootfs
	Images   *image.Store
	Log      *slog.Logger
}

// Manager makes and removes root file systems. Calls for different IDs run side by side.
type Manager struct {
	config  Config
	records *durable.Store[record]
	locks   keylock.Locks[string]
}

// record is the intent, written before the kernel or the disk is touched.
type record struct {
	Chain    []string // layers held
	ReadOnly bool
}

// Open finds the root file systems of an earlier process of this boot, holds their layers, and deletes the
// writable layers of those that a reboot ended. Call image.Store.Collect after it.
func Open(config Config) (*Manager, error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}

	for _, dir := range []string{
		config.Dir,
		config.StateDir,
		filepath.Join(config.StateDir, "mounts"),
		filepath.Join(config.Dir, "empty"),
	} {
		// A container's programs may be setuid, so nobody else on the host may come to them.
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700)); err != nil {
			return nil, err
		}
	}

	if err := fitForUpper(config.Dir); err != nil {
		return nil, err
	}

	records, err := durable.OpenStore[record](filepath.Join(config.StateDir, "records"), true)
	if err != nil {
		return nil, err
	}

	m := &Manager{config: config, records: records}
	return m, m.recover()
}

// fitForUpper refuses a file system on which every container would fail.
func fitForUpper(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("%s is on overlayfs, where the kernel allows no writable container layers: put "+
			"the root directory on a disk or tmpfs", dir)
	}
	return nil
}

func (m *Manager) recover() error {
	all, torn, err := m.records.List()
	if err != nil {
		return err
	}

	for _, t := range torn {
		m.config.Log.Warn("rootfs record set aside", "record", t.Name, "moved", t.Moved, "err", t.Err)
	}

	for id, r := range all {
		if err := m.config.Images.Hold(owner(id), r.Chain); err != nil {
			m.config.Log.Warn("rootfs has lost layers", "container", id, "err", err)
		}
	}

	for _, dir := range []string{m.containers(), filepath.Join(m.config.StateDir, "mounts")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}

		for _, e := range entries {
			if _, known := all[e.Name()]; known {
				continue
			}

			// tried again at the next start
			if err := m.delete(e.Name()); err != nil {
				m.config.Log.Warn("rootfs without a record stays", "rootfs", e.Name(), "err", err)
			}
		}
	}

	return nil
}

// Path is where the root file system of id is mounted, if it is.
func (m *Manager) Path(id string) string { return filepath.Join(m.config.StateDir, "mounts", id) }

func owner(id string) string                 { return "rootfs:" + id }
func (m *Manager) containers() string        { return filepath.Join(m.config.Dir, "containers") }
func (m *Manager) upper(id string) string    { return filepath.Join(m.containers(), id, "upper") }
func (m *Manager) work(id string) string     { return filepath.Join(m.containers(), id, "work") }
func (m *Manager) writable(id string) string { return filepath.Join(m.containers(), id) }

// Prepare mounts a writable root file system of img for a container and returns its path. For an ID that has
// one, it is the same one. On failure nothing is left. The way back is Release.
func (m *Manager) Prepare(ctx context.Context, id string, img image.Image) (path string, err error) {
	return m.prepare(ctx, id, img, false)
}

// PrepareReadOnly mounts an image's files read-only, e.g. as a volume of a container. id must differ from
// that of any container.
func (m *Manager) PrepareReadOnly(ctx context.Context, id string, img image.Image) (path string, err error) {
	return m.prepare(ctx, id, img, true)
}

func (m *Manager) prepare(
	ctx context.Context,
	id string,
	img image.Image,
	readOnly bool,
) (path string, err error) {
	if err := checkID(id); err != nil {
		return "", err
	}

	unlock, err := m.locks.Lock(ctx, id)
	if err != nil {
		return "", err
	}
	defer unlock()

	path = m.Path(id)
	if r, err := m.records.Get(id); err == nil {
		if !slices.Equal(r.Chain, img.Chain) || r.ReadOnly != readOnly {
			return "", fmt.Errorf("rootfs %s exists with another image", id)
		}
		if mounted, err := mount.Mounted(path); err != nil || mounted {
			return path, err
		}

		// half made by a killed process
		if err := m.delete(id); err != nil {
			return "", err
		}
	}

	if err := m.config.Images.Hold(owner(id), img.Chain); err != nil {
		return "", fmt.Errorf("rootfs %s of image %s: %w", id, img.ID, err)
	}

	defer func() {
		if err != nil {
			err = errors.Join(err, m.forget(id))
		}
	}()

	if err := m.records.Put(id, record{Chain: img.Chain, ReadOnly: readOnly}); err != nil {
		return "", fmt.Errorf("record rootfs %s: %w", id, err)
	}
	if err := m.mount(id, img.Layers, readOnly); err != nil {
		return "", fmt.Errorf("mount rootfs %s of image %s: %w", id, img.ID, err)
	}

	return path, nil
}

func (m *Manager) mount(id string, layers []string, readOnly bool) error {
	path := m.Path(id)
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}

	lower := slices.Clone(layers)
	slices.Reverse(lower)
	if readOnly || len(lower) == 0 {
		// overlayfs wants two layers when none is writable, and one at least
		lower = append(lower, filepath.Join(m.config.Dir, "empty"))
	}

	o := overlay{lower: lower}
	if !readOnly {
		for _, dir := range []string{m.upper(id), m.work(id)} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
		}

		if err := sameRoot(m.upper(id), lower[0]); err != nil {
			return err
		}

		o.upper, o.work = m.upper(id), m.work(id)
	}

	return o.mount(path)
}

// sameRoot gives the writable layer's root the owner and mode of the image's, since the upper one is what the
// container sees.
func sameRoot(upper, lower string) error {
	info, err := os.Stat(lower)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(upper, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(upper, st.Mode&0o7777)
}

// Release unmounts and deletes a root file system with everything the container wrote. Repeating it is
// success.
func (m *Manager) Release(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}

	unlock, err := m.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	if err := m.forget(id); err != nil {
		return fmt.Errorf("release rootfs %s: %w", id, err)
	}

	return nil
}

// forget deletes the record last, so that a killed Release is finished by the next one.
func (m *Manager) forget(id string) error {
	if err := m.delete(id); err != nil {
		return err
	}
	if err := m.records.Delete(id); err != nil {
		return err
	}
	return m.config.Images.Drop(owner(id))
}

func (m *Manager) delete(id string) error {
	if err := mount.Unmount(m.Path(id)); err != nil {
		return err
	}
	if err := os.Remove(m.Path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return removal.Tree(m.writable(id))
}

// IDs lists the root file systems that exist: what a container that is gone left here can be released.
func (m *Manager) IDs() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(m.config.StateDir, "mounts"))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, nil
}
