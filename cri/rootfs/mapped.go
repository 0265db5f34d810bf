package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/namespace"
)

// points are where root filesystems are mounted: those of the host's users in a directory where only root
// comes, those of pods' users in one that everybody may pass through, since the OCI runtime is one of these
// users when it enters the root. mapped is "" where there are no such pods.
type points struct{ plain, mapped string }

// own is the directory of one that is for users of a pod.
func (p points) own(id string) string { return filepath.Join(p.mapped, id) }

// of returns where the root filesystem of these users is mounted; nil are those of the host.
func (p points) of(id string, users *namespace.Users) string {
	if users == nil {
		return filepath.Join(p.plain, id)
	}
	return filepath.Join(p.own(id), "root")
}

// make makes the directory that a root filesystem is mounted on. Of all others on the host, only the pod's
// root comes to a mapped one.
func (p points) make(id string, users *namespace.Users) error {
	if err := os.MkdirAll(p.of(id, users), 0o755); err != nil || users == nil {
		return err
	}
	return Admit(p.own(id), *users)
}

// remove unmounts and removes what there is of a root filesystem.
func (p points) remove(id string) error {
	paths := []string{p.of(id, nil)}
	if p.mapped != "" {
		if err := p.removeVolumes(id); err != nil {
			return err
		}

		paths = append(paths, p.of(id, &namespace.Users{}), p.own(id))
	}

	return removeAll(paths)
}

// volumes is where volumes of a container are mounted as those of its users.
func (p points) volumes(id string) string { return filepath.Join(p.own(id), "volumes") }

// removeVolumes unmounts and removes them.
func (p points) removeVolumes(id string) error {
	entries, err := os.ReadDir(p.volumes(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	var paths []string
	for _, e := range entries {
		paths = append(paths, filepath.Join(p.volumes(id), e.Name()))
	}

	return removeAll(append(paths, p.volumes(id)))
}

// removeAll unmounts and removes mount points. One that does not exist is success.
func removeAll(paths []string) error {
	for _, path := range paths {
		if err := mount.Unmount(path); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// dirs are the directories with one entry for each root filesystem that is mounted.
func (p points) dirs() []string {
	if p.mapped == "" {
		return []string{p.plain}
	}
	return []string{p.plain, p.mapped}
}

// Admit lets the root of a pod, and nobody else on the host, pass through a directory of the host's root.
func Admit(dir string, users namespace.Users) error {
	if err := os.Chown(dir, 0, int(users.First)); err != nil {
		return err
	}
	return os.Chmod(dir, 0o710)
}

// MapVolume mounts a file or directory of the host once more, with its files as those of the users of a root
// filesystem that was prepared for users, and returns where. number distinguishes the volumes of one root
// filesystem. It is there until UnmapVolumes or Release.
func (s *Store) MapVolume(
	ctx context.Context, id string, number int, source string, readOnly bool,
) (path string, err error) {
	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return "", err
	}
	defer unlock()

	// One that was released meanwhile has no volumes.
	r, err := s.records.Get(id)
	if err != nil || r.Users == nil {
		return "", fmt.Errorf("rootfs %s has no users of its own: %w", id, err)
	}

	owner, err := os.Open(r.Users.Path)
	if err != nil {
		return "", fmt.Errorf("user namespace: %w", err)
	}
	defer owner.Close()

	tree, err := mount.CloneMapped(source, int(owner.Fd()))
	if err != nil {
		return "", err
	}
	defer unix.Close(tree)

	if readOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return "", fmt.Errorf("make %s read-only: %w", source, err)
		}
	}

	path = filepath.Join(s.points.volumes(id), strconv.Itoa(number))
	if err := makeLike(path, source); err != nil {
		return "", err
	}

	return path, mount.Attach(tree, path)
}

// makeLike makes a mount point for source: a directory, or an empty file for all else.
func makeLike(path, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o644)
}

// UnmapVolumes unmounts what MapVolume has mounted. Containers that have mounted it keep it, and nothing else
// of the host holds their volumes any more.
func (s *Store) UnmapVolumes(ctx context.Context, id string) error {
	if s.cfg.MappedDir == "" {
		return nil
	}

	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	return s.points.removeVolumes(id)
}

// mountMapped mounts an overlay on target, with the files of the lower layers as those of users. What is
// written is owned by the IDs outside, as the writable layer is not mapped: overlayfs itself cannot be.
func (o overlay) mountMapped(target string, users namespace.Users) error {
	tree, err := o.treeOf(target, users)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return mount.Attach(tree, target)
}

// treeOf returns a mapped overlay that is attached nowhere. overlayfs takes its layers by path, and before
// Linux 6.15 none that is attached nowhere: so each mapped layer covers itself, where nobody sees it.
func (o overlay) treeOf(target string, users namespace.Users) (tree int, err error) {
	owner, err := unix.Open(users.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("user namespace %s: %w", users.Path, err)
	}
	defer unix.Close(owner)

	err = namespace.InOwnMounts(func() error {
		for _, dir := range o.lower {
			if err := cover(dir, owner); err != nil {
				return err
			}
		}

		if err := o.mount(target); err != nil {
			return err
		}

		const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
		tree, err = unix.OpenTree(unix.AT_FDCWD, target, flags)
		return err
	})

	return tree, err
}

// cover mounts a directory on itself with the IDs of a user namespace.
func cover(dir string, owner int) error {
	fd, err := mount.CloneMapped(dir, owner)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return mount.Attach(fd, dir)
}

// CheckMapping makes and removes a mapped overlay, and returns an error that says why there can be none on
// this machine.
func (s *Store) CheckMapping() (err error) {
	if s.cfg.MappedDir == "" {
		return errors.New("no directory for mapped root file systems is configured")
	}
	if err := checkPassage(s.cfg.MappedDir); err != nil {
		return err
	}

	users := namespace.Users{Path: filepath.Join(s.cfg.StateDir, "probe"), First: 1 << 16, Length: 1 << 16}

	// One of a server that was killed.
	if err := namespace.Unpin(users.Path); err != nil {
		return err
	}
	if err := namespace.CreateOwned(nil, users, nil); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, namespace.Unpin(users.Path)) }()

	if err := checkKernelFiles(s.empty(), users); err != nil {
		return err
	}

	// One is on the disk, the other on tmpfs, as the volumes are that hold the tokens of pods.
	tree, err := overlay{lower: []string{s.empty(), s.points.plain}}.treeOf(s.empty(), users)
	if err != nil {
		return fmt.Errorf("overlayfs with mapped layers (Linux 5.19, for those on tmpfs 6.3): %w", err)
	}

	return unix.Close(tree)
}

// checkKernelFiles returns an error if a pod cannot have a /proc or a /sys of its own: the kernel allows that
// where the whole of it is seen already, with nothing mounted over its parts. dir is mounted on where nobody
// sees it.
func checkKernelFiles(dir string, users namespace.Users) error {
	return namespace.InOwnedMounts(users, func() error {
		const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
		for _, kind := range []string{"proc", "sysfs"} {
			if err := unix.Mount(kind, dir, kind, flags|unix.MS_RDONLY, ""); err != nil {
				const format = "a pod cannot mount %s: is something mounted over parts of it? %w"
				return fmt.Errorf(format, kind, err)
			}
		}
		return nil
	})
}

// checkPassage returns an error if a directory cannot be reached by everybody.
func checkPassage(dir string) error {
	for ; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode()&0o001 == 0 {
			return fmt.Errorf("users of pods cannot pass through %s (chmod o+x)", dir)
		}
	}
	return nil
}
