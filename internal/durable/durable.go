// Package durable writes small files so that a reader sees the old content or the new one, never a mixture,
// whatever instruction the writer is killed at. It keeps JSON records, one file for each object, that survive
// a power loss.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteFile replaces path with data: it writes a temporary file in the same directory, syncs it, renames it
// and syncs the directory. When it returns nil, the new content survives a power loss.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, putSynced)
}

// WriteOwned is WriteFile for a file that has another owner.
func WriteOwned(path string, data []byte, mode fs.FileMode, uid, gid int) error {
	return write(path, data, mode, func(temp *os.File, path string) error {
		if err := temp.Chown(uid, gid); err != nil {
			return err
		}
		return putSynced(temp, path)
	})
}

// Replace is WriteFile for a file of somebody else: its mode and its owner stay, and where path is a link, it
// is the file which is replaced.
func Replace(path string, data []byte) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(target, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: target, Err: err}
	}
	return WriteOwned(target, data, fs.FileMode(st.Mode).Perm(), int(st.Uid), int(st.Gid))
}

// WriteVolatile is WriteFile without syncs: the content survives the end of the writer, but not a power loss.
// It is for files that are of no use after a reboot, as those in /run.
func WriteVolatile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, put)
}

// WriteUnflushed is WriteVolatile where even what a file system does by itself takes too long: ext4 writes
// out what is renamed over another file, which waits for the syncs of others. After a power loss the file may
// be empty.
func WriteUnflushed(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, putInExchange)
}

// write writes a temporary file and has it put in the place of path.
func write(path string, data []byte, mode fs.FileMode, put func(temp *os.File, path string) error) error {
	f, err := writeTemp(path, data, mode)
	if err != nil {
		return err
	}

	if err := put(f, path); err != nil {
		f.Close()
		os.Remove(f.Name())
		return err
	}

	return nil
}

// putSynced syncs the file, renames it and syncs the directory.
func putSynced(temp *os.File, path string) error {
	if err := temp.Sync(); err != nil {
		return err
	}
	if err := put(temp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// put renames the file.
func put(temp *os.File, path string) error {
	if err := temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// putInExchange exchanges the file with the one that has its name, if there is one, and removes that.
func putInExchange(temp *os.File, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, temp.Name(), unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	if err != nil {
		// There is none, or the file system cannot do it.
		return put(temp, path)
	}
	return errors.Join(temp.Close(), os.Remove(temp.Name()))
}

// writeTemp writes data into a new temporary file beside path, which the caller closes.
func writeTemp(path string, data []byte, mode fs.FileMode) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+filepath.Base(path)+"-")
	if err != nil {
		return nil, err
	}
	if err = f.Chmod(mode); err == nil {
		_, err = f.Write(data)
	}

	if err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, err
	}

	return f, nil
}

// tempPrefix begins the names of temporary files. Store.List, Sweep and SweepDir remove those that a killed
// writer has left.
const tempPrefix = ".tmp-"

// Sweep removes the temporary files that killed writers of path have left beside it. There must be no other
// writer of path while it runs.
func Sweep(path string) error {
	return sweep(filepath.Dir(path), tempPrefix+filepath.Base(path)+"-")
}

// SweepDir is Sweep for all files of a directory, of which there must be no other writer while it runs. One
// that is not there is success.
func SweepDir(dir string) error { return sweep(dir, tempPrefix) }

func sweep(dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || !e.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}

	return errors.Join(errs...)
}

// SyncDir makes the entries of dir durable: the sync of a file does not cover its directory entry (fsync(2)).
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()

	if err := d.Sync(); err != nil {
		return fmt.Errorf("fsync %s: %w", dir, err)
	}
	return nil
}
