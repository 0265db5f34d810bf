package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/treewalk"
)

// Volume makes a directory of the image writable, even in a read-only root filesystem, as the image's VOLUME
// wants it: source is to be bound to target, which is path without symbolic links. It is deleted with the
// root filesystem, which must be mounted, and not yet be in use. number distinguishes the volumes of one root
// filesystem.
//
// A directory with files is bound to itself: the overlay's, which has the image's files and takes what is
// written. An empty one gets a directory of its own on the disk, since that is what it is for: not all that
// databases or nested runtimes do works on an overlay.
func (s *Store) Volume(id string, number int, path string) (source, target string, err error) {
	r, _ := s.records.Get(id)
	root := s.points.of(id, r.Users)
	inside, err := securejoin.SecureJoin(root, path)
	if err != nil {
		return "", "", fmt.Errorf("volume %s: %w", path, err)
	}
	if err := makeAll(inside, r.Users); err != nil {
		return "", "", fmt.Errorf("volume %s: %w", path, err)
	}

	// The target is inside the container, without links that its programs could change.
	target = filepath.Join("/", strings.TrimPrefix(inside, root))

	empty, err := isEmpty(inside)
	if err != nil {
		return "", "", fmt.Errorf("volume %s: %w", path, err)
	}
	if !empty {
		return inside, target, nil
	}

	source = filepath.Join(s.volumes(id), strconv.Itoa(number))
	if err := os.MkdirAll(source, 0o700); err != nil {
		return "", "", fmt.Errorf("volume %s: %w", path, err)
	}
	if err := likeDirectory(source, inside, nil); err != nil {
		return "", "", fmt.Errorf("volume %s: %w", path, err)
	}

	return source, target, nil
}

func (s *Store) volumes(id string) string { return filepath.Join(s.writable(id), "volumes") }

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return treewalk.IsEmpty(f)
}

// makeAll makes a directory in a root filesystem, and those above it, for the root of its users.
func makeAll(dir string, users *namespace.Users) error {
	err := os.Mkdir(dir, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if err := makeAll(filepath.Dir(dir), users); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o755)
	}

	if err != nil || users == nil {
		return err
	}

	return os.Chown(dir, int(users.First), int(users.First))
}

// likeDirectory gives dir the owner and mode of model, whose IDs are those in the namespace of users. An
// owner that it does not have is its root.
func likeDirectory(dir, model string, users *namespace.Users) error {
	info, err := os.Stat(model)
	if err != nil {
		return err
	}

	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fs.ErrInvalid
	}
	if err := os.Chown(dir, outside(st.Uid, users), outside(st.Gid, users)); err != nil {
		return err
	}

	return unix.Chmod(dir, st.Mode&0o7777)
}

func outside(id uint32, users *namespace.Users) int {
	if users == nil {
		return int(id)
	}
	if mapped, ok := users.Outside(id); ok {
		return int(mapped)
	}
	return int(users.First)
}
