// Package atomicdir replaces the files of a directory all at once: readers see the old set or the new one,
// never a mixture. The layout is the one that Kubernetes volumes have and programs in containers rely on: the
// files live in a directory ..DATE, the symbolic link ..data leads to it, and each visible name is a link to
// ..data/NAME. An update writes a new directory and replaces ..data by rename(2).
package atomicdir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

const (
	link    = "..data"
	newLink = "..data_tmp"
)

// File is one file of the set.
type File struct {
	Data []byte
	Mode fs.FileMode

	// UID is the owner; 0 is root.
	UID int
}

// Owner is who can read the files beside their own UID.
type Owner struct {
	// GID is the pod's fsGroup. Nil is root's group, and modes as they are.
	GID *int64
}

// readable is what an fsGroup adds to the modes of files; directories get execute and setgid, too.
const readable = 0o440

// Write makes the files of dir exactly these, by slash-separated relative names. It writes nothing, and
// returns false, when content, modes and owners are right already. A process that is killed meanwhile leaves
// the old set in force; the next Write cleans up.
func Write(dir string, files map[string]File, owner Owner) (changed bool, err error) {
	for name := range files {
		if err := check(name); err != nil {
			return false, err
		}
	}

	current, err := os.Readlink(filepath.Join(dir, link))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read content of %s: %w", dir, err)
	}
	if current != "" && same(filepath.Join(dir, current), files, owner) {
		return false, errors.Join(linkNames(dir, files), sweep(dir, current, files))
	}

	fresh, err := writeSet(dir, files, owner)
	if err != nil {
		return false, err
	}
	if err := swap(dir, fresh); err != nil {
		return false, err
	}

	return true, errors.Join(linkNames(dir, files), sweep(dir, fresh, files))
}

// check refuses names that leave the directory or collide with the layout.
func check(name string) error {
	switch {
	case name == "" || path.IsAbs(name) || path.Clean(name) != name || !filepath.IsLocal(name) || name == ".":
		return fmt.Errorf("file name %q: must be a clean path below the volume", name)
	case strings.HasPrefix(name, ".."):
		return fmt.Errorf("file name %q: must not begin with '..'", name)
	case len(name) > 4096:
		return fmt.Errorf("file name %.40q...: longer than 4096 bytes", name)
	}
	return nil
}

// mode is what the file's mode is to be.
func mode(f File, owner Owner) fs.FileMode {
	m := f.Mode.Perm()
	if owner.GID != nil {
		m |= readable
	}
	return m
}

// same reports whether the set in dir has exactly these files.
func same(dir string, files map[string]File, owner Owner) bool {
	found := 0
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}

		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}

		want, ok := files[filepath.ToSlash(rel)]
		if !ok {
			return fs.ErrExist
		}

		info, err := d.Info()
		if err != nil {
			return err
		}

		// Somebody may have changed them, or the fsGroup is another one.
		uid, gid := ids(info)
		if info.Mode().Perm() != mode(want, owner) || uid != want.UID || gid != owner.gid() {
			return fs.ErrInvalid
		}

		have, err := boundedfile.Read(p, int64(len(want.Data)))
		if err != nil {
			return err
		}
		if !bytes.Equal(have, want.Data) {
			return fs.ErrInvalid
		}

		found++
		return nil
	})

	return err == nil && found == len(files)
}

// gid is the group of the files.
func (o Owner) gid() int {
	if o.GID == nil {
		return 0
	}
	return int(*o.GID)
}

// writeSet writes the files into a new directory and returns its name.
func writeSet(dir string, files map[string]File, owner Owner) (string, error) {
	fresh, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return "", fmt.Errorf("write content of %s: %w", dir, err)
	}

	dirs := map[string]bool{fresh: true}
	for name, f := range files {
		file := filepath.Join(fresh, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return "", fmt.Errorf("write content of %s: %w", dir, err)
		}

		for d := filepath.Dir(file); d != fresh; d = filepath.Dir(d) {
			dirs[d] = true
		}

		if err := writeFile(file, f, owner); err != nil {
			return "", fmt.Errorf("write content of %s: %w", dir, err)
		}
	}

	for d := range dirs {
		if err := ownDir(d, owner); err != nil {
			return "", fmt.Errorf("write content of %s: %w", dir, err)
		}
	}

	return filepath.Base(fresh), nil
}

// writeFile writes a file with its mode, whatever the umask is.
func writeFile(file string, f File, owner Owner) error {
	if err := os.WriteFile(file, f.Data, 0o600); err != nil {
		return err
	}
	if f.UID != 0 || owner.GID != nil {
		if err := os.Lchown(file, f.UID, owner.gid()); err != nil {
			return err
		}
	}

	return os.Chmod(file, mode(f, owner))
}

// ownDir makes a directory readable for the owner.
func ownDir(dir string, owner Owner) error {
	if owner.GID == nil {
		return os.Chmod(dir, 0o755)
	}
	if err := os.Lchown(dir, 0, owner.gid()); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755|fs.ModeSetgid)
}

// swap makes the set fresh the one that readers see.
func swap(dir, fresh string) error {
	temporary := filepath.Join(dir, newLink)
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace content of %s: %w", dir, err)
	}
	if err := os.Symlink(fresh, temporary); err != nil {
		return fmt.Errorf("replace content of %s: %w", dir, err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, link)); err != nil {
		return fmt.Errorf("replace content of %s: %w", dir, err)
	}
	return nil
}

// linkNames makes the visible links that are missing.
func linkNames(dir string, files map[string]File) error {
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		err := os.Symlink(filepath.Join(link, top), filepath.Join(dir, top))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link %s in %s: %w", top, dir, err)
		}
	}
	return nil
}

// sweep removes visible links to names that are gone, earlier sets, and what killed processes left.
func sweep(dir, current string, files map[string]File) error {
	keep := map[string]bool{link: true, current: true}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		keep[top] = true
	}

	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("clean %s: %w", dir, err)
	}

	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}

		old := filepath.Join(dir, e.Name())
		target, _ := os.Readlink(old)
		if strings.HasPrefix(e.Name(), "..") || strings.HasPrefix(target, link+"/") {
			err = errors.Join(err, os.RemoveAll(old))
		}
	}

	return err
}
