// Package durable writes small files so that a reader sees the old content or the new, never a mixture,
// whatever instruction the writer was killed at; and keeps JSON records, one file per object, that survive a
// power loss.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// WriteFile replaces path with data: temporary file in the same directory, fsync, rename, fsync of the
// directory. When it returns nil, the new content survives a power loss.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, true)
}

// WriteVolatile is WriteFile without fsync: atomic against kill -9 but not against power loss. It is for what
// dies with the boot (/run).
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

// writeTemp writes data into a temporary file beside path.
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

// tempPrefix marks files that a killed writer left behind; Store.List and Sweep remove them.
const tempPrefix = ".tmp-"

// Sweep removes what killed writers of path have left beside it. There must be no other writer of path at the
// time.
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

// SyncDir makes the entries of dir durable (fsync(2): a file's fsync does not cover its directory entry).
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
