// Package rootfs makes the root filesystems of containers: an overlayfs mount of an image's layers and a
// writable directory, or a read-only one for image volumes. Each is found again after a kill -9, and is gone
// after a reboot.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/removal"
)

// Config says where root filesystems live.
type Config struct {
	// Dir is for writable layers, such as /var/lib/trivet/cri/rootfs. It must not be on overlayfs.
	Dir string

	// StateDir is for records and mount points, such as /run/trivet/cri/rootfs. Its content must end with the
	// boot.
	StateDir string

	// MappedDir is for the mount points of pods with user namespaces, such as /run/trivet/cri/mapped. Its
	// content must end with the boot, and everybody must be able to pass through the directories above it.
	// Without it there can be no such pods.
	MappedDir string

	Images *image.Store
	Log    *slog.Logger
}

// Store is the root filesystems of a node's containers. Its methods may be called concurrently; only calls
// for one ID wait for each other.
type Store struct {
	cfg     Config
	points  points
	records *durable.Store[record]
	locks   keylock.Locks[string]
}

// record is the intent, written before the kernel or the disk is touched.
type record struct {
	Chain    []string // layers held
	ReadOnly bool

	// Users are those of the pod; nil are the host's.
	Users *namespace.Users `json:",omitempty"`
}

// Open finds the root filesystems of an earlier process of this boot, holds their layers, and deletes the
// writable layers of those that a reboot has ended. Call image.Store.Collect after it.
func Open(cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}

	s := &Store{cfg: cfg, points: points{filepath.Join(cfg.StateDir, "mounts"), cfg.MappedDir}}
	for _, dir := range []string{
		cfg.Dir,
		cfg.StateDir,
		s.points.plain,
		s.empty(),
	} {
		// A container's programs may be setuid, so nobody else on the host may reach them.
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700)); err != nil {
			return nil, err
		}
	}

	if err := checkUpper(cfg.Dir); err != nil {
		return nil, err
	}
	if cfg.MappedDir != "" {
		if err := errors.Join(os.MkdirAll(cfg.MappedDir, 0o711), os.Chmod(cfg.MappedDir, 0o711)); err != nil {
			return nil, err
		}
	}

	var err error
	s.records, err = durable.OpenStore[record](filepath.Join(cfg.StateDir, "records"), true)
	if err != nil {
		return nil, err
	}

	return s, s.recover()
}

// checkUpper returns an error for a filesystem on which every container would fail.
func checkUpper(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}

	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf(
			"%s is on overlayfs, where the kernel does not allow writable container layers: put "+
				"the root directory on a disk or tmpfs",
			dir,
		)
	}

	return nil
}

func (s *Store) recover() error {
	known, torn, err := s.records.List()
	if err != nil {
		return err
	}

	for _, t := range torn {
		s.cfg.Log.Warn("rootfs record set aside", "record", t.Name, "moved", t.Moved, "err", t.Err)
	}

	for id, r := range known {
		if err := s.cfg.Images.Hold(owner(id), r.Chain); err != nil {
			s.cfg.Log.Warn("rootfs has lost layers", "container", id, "err", err)
		}
	}

	var errs []error
	for _, dir := range append(s.points.dirs(), s.containers()) {
		errs = append(errs, s.deleteUnknown(dir, known))
	}
	return errors.Join(errs...)
}

// deleteUnknown deletes the root filesystems in a directory that have no record. One that cannot be deleted
// is tried again at the next start.
func (s *Store) deleteUnknown(dir string, known map[string]record) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	for _, e := range entries {
		if _, ok := known[e.Name()]; ok {
			continue
		}
		if err := s.delete(e.Name()); err != nil {
			s.cfg.Log.Warn("rootfs without a record stays", "rootfs", e.Name(), "err", err)
		}
	}

	return nil
}

// Path returns where the root filesystem of id is mounted, if it is.
func (s *Store) Path(id string) string {
	r, _ := s.records.Get(id)
	return s.points.of(id, r.Users)
}

// owner is the name by which a root filesystem holds its layers.
func owner(id string) string { return "rootfs:" + id }

func (s *Store) containers() string        { return filepath.Join(s.cfg.Dir, "containers") }
func (s *Store) upper(id string) string    { return filepath.Join(s.containers(), id, "upper") }
func (s *Store) work(id string) string     { return filepath.Join(s.containers(), id, "work") }
func (s *Store) writable(id string) string { return filepath.Join(s.containers(), id) }
func (s *Store) empty() string             { return filepath.Join(s.cfg.Dir, "empty") }

// Prepare mounts a writable root filesystem of img for a container and returns its path. Its files are those
// of the IDs of users; nil are the host's. For an ID that has one, it returns that. On an error nothing is
// left. Release undoes it.
func (s *Store) Prepare(
	ctx context.Context, id string, img image.Image, users *namespace.Users,
) (path string, err error) {
	return s.prepare(ctx, id, img, record{Chain: img.Chain, Users: users})
}

// PrepareReadOnly mounts an image's files read-only, such as for a volume of a container. id must differ from
// those of all containers. Release undoes it.
func (s *Store) PrepareReadOnly(
	ctx context.Context, id string, img image.Image, users *namespace.Users,
) (path string, err error) {
	return s.prepare(ctx, id, img, record{Chain: img.Chain, ReadOnly: true, Users: users})
}

func (s *Store) prepare(
	ctx context.Context,
	id string,
	img image.Image,
	wanted record,
) (path string, err error) {
	if err := checkID(id); err != nil {
		return "", err
	}

	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return "", err
	}
	defer unlock()

	// A repeated call finds what the first has made.
	path = s.points.of(id, wanted.Users)
	if r, err := s.records.Get(id); err == nil {
		if !reflect.DeepEqual(r, wanted) {
			return "", fmt.Errorf("rootfs %s exists with another image", id)
		}
		if mounted, err := mount.Mounted(path); err != nil || mounted {
			return path, err
		}

		// A process was killed while it made it.
		if err := s.delete(id); err != nil {
			return "", err
		}
	}

	// The layers are held before the record names them: nobody removes what is mounted next.
	if err := s.cfg.Images.Hold(owner(id), img.Chain); err != nil {
		return "", fmt.Errorf("rootfs %s of image %s: %w", id, img.ID, err)
	}

	defer func() {
		if err != nil {
			err = errors.Join(err, s.forget(id))
		}
	}()

	if err := s.records.Put(id, wanted); err != nil {
		return "", fmt.Errorf("record rootfs %s: %w", id, err)
	}
	if err := s.mount(id, img.Layers, wanted); err != nil {
		return "", fmt.Errorf("mount rootfs %s of image %s: %w", id, img.ID, err)
	}

	return path, nil
}

func (s *Store) mount(id string, layers []string, r record) error {
	path := s.points.of(id, r.Users)
	if err := s.points.make(id, r.Users); err != nil {
		return err
	}

	lower := slices.Clone(layers)
	slices.Reverse(lower)
	if r.ReadOnly || len(lower) == 0 {
		// overlayfs needs two layers when none is writable, and at least one in any case.
		lower = append(lower, s.empty())
	}

	o := overlay{lower: lower}
	if !r.ReadOnly {
		if err := s.makeWritable(id); err != nil {
			return err
		}

		for _, dir := range []string{s.upper(id), s.work(id)} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
		}

		// The container sees the writable layer's root, which must be like that of the image.
		if err := likeDirectory(s.upper(id), lower[0], r.Users); err != nil {
			return err
		}

		o.upper = s.upper(id)
		o.work = s.work(id)
	}

	if r.Users != nil {
		return o.mountMapped(path, *r.Users)
	}

	return o.mount(path)
}

// makeWritable makes the directory of what a container writes. Where the file system can, the kernel counts
// what is below: the directories of an overlay must be of one project, because it moves files between them.
func (s *Store) makeWritable(id string) error {
	dir := s.writable(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}

	err := projectquota.Assign(dir)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		s.cfg.Log.Warn("a writable layer has no project quota and is measured by its files", "err", err)
	}

	return nil
}

// Release unmounts and deletes a root filesystem with everything that the container wrote. Repeating it is
// success.
func (s *Store) Release(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}

	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	if err := s.forget(id); err != nil {
		return fmt.Errorf("release rootfs %s: %w", id, err)
	}

	return nil
}

// forget deletes a root filesystem, the record last, so that the next Release completes one that was killed.
func (s *Store) forget(id string) error {
	if err := s.delete(id); err != nil {
		return err
	}
	if err := s.records.Delete(id); err != nil {
		return err
	}
	return s.cfg.Images.Drop(owner(id))
}

func (s *Store) delete(id string) error {
	if err := s.points.remove(id); err != nil {
		return err
	}
	return removal.Tree(s.writable(id))
}

// IDs returns the IDs of the root filesystems that exist: those of containers that are gone can be released.
func (s *Store) IDs() ([]string, error) {
	var ids []string
	for _, dir := range s.points.dirs() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}
