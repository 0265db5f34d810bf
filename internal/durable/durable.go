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
)

// WriteFile replaces path with data: it writes a temporary file in the same directory, syncs it, renames it
// and syncs the directory. When it returns nil, the new content survives a power loss.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, true)
}

// WriteVolatile is WriteFile without syncs: the content survives the end of the writer, but not a power loss.
// It is for files that are of no use after a reboot, as those in /run.
func WriteVolatile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, false)
}

func write(path string, data []byte, mode fs.FileMode, sync bool) (err error) {
	f, err := writeTemp(path, data, mode)
	if err != nil {
		return err
	}

	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()

	if sync {
		if err = f.Sync(); err != nil {
			return err
		}
	}

	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	if sync {
		return SyncDir(filepath.Dir(path))
	}

	return nil
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

// tempPrefix begins the names of temporary files. Store.List and Sweep remove those that a killed writer has
// left.
const tempPrefix = ".tmp-"

// Sweep removes the temporary files that killed writers of path have left beside it. There must be no other
// writer of path while it runs.
func Sweep(path string) error {
	dir, prefix := filepath.Dir(path), tempPrefix+filepath.Base(path)+"-"
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
