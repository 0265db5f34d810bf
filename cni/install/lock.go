package install

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/lockfile"
)

// lockName is the file in keptDir that is locked.
const lockName = ".lock"

// locked calls f while no other process changes the directory. Two at once could each take the other's link
// for what was there before.
func (d Directory) locked(f func() error) error {
	lock, err := d.lock()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()

	return f()
}

// lock waits for the lock, a file that Uninstall removes with all else that is kept: who has waited for one
// that was removed tries again.
func (d Directory) lock() (*os.File, error) {
	path := d.kept(lockName)
	for {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}

		file, err := lockfile.Take(context.Background(), path, "directory "+d.Path+" (--dir)")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if isAt(path, file) {
			return file, nil
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
}

// isAt reports whether an open file is the one that has a path.
func isAt(path string, file *os.File) bool {
	there, err := os.Lstat(path)
	if err != nil {
		return false
	}
	open, err := file.Stat()
	return err == nil && os.SameFile(open, there)
}

// forget removes all that is kept, the lock last: from then on who waits for it makes a new one in the same
// directory, which is not this call's to remove any more.
func (d Directory) forget() error {
	dir := filepath.Join(d.Path, keptDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}

	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}

	if err := removeIfThere(d.kept(lockName)); err != nil {
		return err
	}

	err = os.Remove(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return err
}
