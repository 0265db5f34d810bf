package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
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
	root := s.Path(id)
	inside, err := securejoin.SecureJoin(root, path)
	if err != nil {
		return "", "", fmt.Errorf("volume %s: %w", path, err)
	}
	if err := os.MkdirAll(inside, 0o755); err != nil {
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
	if err := likeDirectory(source, inside); err != nil {
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
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// likeDirectory gives dir the owner and mode of model.
func likeDirectory(dir, model string) error {
	info, err := os.Stat(model)
	if err != nil {
		return err
	}

	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fs.ErrInvalid
	}
	if err := os.Chown(dir, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}

	return unix.Chmod(dir, st.Mode&0o7777)
}
