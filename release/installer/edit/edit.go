// Package edit changes files of a node so that they can be given back: what was at a path is kept before it
// is replaced for the first time, and comes back unless somebody else has changed the file meanwhile.
package edit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/trivet-node/trivet/internal/durable"
)

// Originals are the files that were there before, in a directory of their own.
type Originals struct {
	contents string
	records  *durable.Store[original]
}

// original is a path that was changed.
type original struct {
	Path string `json:"path"`

	// Kind says what was there.
	Kind kind `json:"kind"`

	// Mode, UID and GID are those of a file; its content is beside the record.
	Mode fs.FileMode `json:"mode,omitempty"`
	UID  int         `json:"uid,omitempty"`
	GID  int         `json:"gid,omitempty"`

	// Link is where a symbolic link led.
	Link string `json:"link,omitempty"`

	// Written are the sums of what was written here, of which one may not have got there.
	Written []string `json:"written"`
}

type kind string

const (
	nothing kind = "nothing"
	file    kind = "file"
	link    kind = "link"
)

// Open opens the directory, which it makes where it is missing.
func Open(dir string) (*Originals, error) {
	records, err := durable.OpenStore[original](filepath.Join(dir, "records"), false)
	if err != nil {
		return nil, err
	}

	contents := filepath.Join(dir, "contents")
	return &Originals{contents: contents, records: records}, os.MkdirAll(contents, 0o700)
}

// name is that of the record of a path.
func name(path string) string {
	sum := sha256.Sum256([]byte(path))
	return filepath.Base(path) + "-" + hex.EncodeToString(sum[:4])
}

func (o *Originals) content(path string) string { return filepath.Join(o.contents, name(path)) }

// Write replaces a file. A directory that is missing is made.
func (o *Originals) Write(path string, data []byte, mode fs.FileMode) error {
	now, err := os.ReadFile(path)
	if err == nil && string(now) == string(data) && o.knows(path) {
		return os.Chmod(path, mode)
	}

	if err := o.remember(path, sumOf(data)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := durable.Sweep(path); err != nil {
		return err
	}
	return durable.WriteFile(path, data, mode)
}

// Link replaces what is at a path by a symbolic link.
func (o *Originals) Link(path, target string) error {
	if now, err := os.Readlink(path); err == nil && now == target && o.knows(path) {
		return nil
	}

	if err := o.remember(path, sumOf([]byte(target))); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}

	fresh := path + ".trivet-new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// Create writes a file where there is nothing: one that is there belongs to the administrator, also one that
// was made here and that somebody has edited since.
func (o *Originals) Create(path string, data []byte, mode fs.FileMode) error {
	if _, err := os.Lstat(path); err == nil && !o.knows(path) {
		return nil
	}
	return o.Offer(path, data, mode)
}

// Offer replaces a file as Write does, but not one that somebody has edited since it was replaced.
func (o *Originals) Offer(path string, data []byte, mode fs.FileMode) error {
	known, err := o.records.Get(name(path))
	if errors.Is(err, fs.ErrNotExist) {
		return o.Write(path, data, mode)
	}
	if err != nil {
		return err
	}

	untouched, err := o.isUntouched(path, known)
	if err != nil || !untouched {
		return err
	}
	return o.Write(path, data, mode)
}

// isUntouched reports that a path has nothing of somebody else: what was written here, what was there before,
// where a call was cut off before it wrote, or nothing.
func (o *Originals) isUntouched(path string, known original) (bool, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if ours, err := isOurs(path, known); err != nil || ours {
		return ours, err
	}
	if known.Kind != file {
		return false, nil
	}

	now, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	before, err := os.ReadFile(o.content(path))
	return bytes.Equal(now, before), err
}

func (o *Originals) knows(path string) bool {
	_, err := o.records.Get(name(path))
	return err == nil
}

// remember keeps what is at a path, if that was not done, and what is going to be there.
func (o *Originals) remember(path, sum string) error {
	known, err := o.records.Get(name(path))
	if err == nil {
		// The new one may not get there, so the one that is there stays known.
		here, err := sumAt(path)
		if err != nil {
			return err
		}
		known.Written = slices.DeleteFunc(known.Written, func(s string) bool { return s != here })
		known.Written = append(known.Written, sum)
		return o.records.Put(name(path), known)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	fresh := original{Path: path, Kind: nothing, Written: []string{sum}}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		fresh.Kind = link
		if fresh.Link, err = os.Readlink(path); err != nil {
			return err
		}
	case info.Mode().IsRegular():
		fresh.Kind, fresh.Mode = file, info.Mode().Perm()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			fresh.UID, fresh.GID = int(st.Uid), int(st.Gid)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(o.content(path), data, 0o600); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is neither a file nor a link", path)
	}

	return o.records.Put(name(path), fresh)
}

// Restore gives back what was at a path before. What somebody else has put there since stays. A path that was
// not changed is a success.
func (o *Originals) Restore(path string) error {
	if err := durable.Sweep(path); err != nil {
		return err
	}
	known, err := o.records.Get(name(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	ours, err := isOurs(path, known)
	if err != nil {
		return err
	}
	if ours {
		if err := o.giveBack(known); err != nil {
			return err
		}
	}

	// The record first: without it, the content is of no use.
	if err := o.records.Delete(name(path)); err != nil {
		return err
	}
	if err := os.Remove(o.content(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isOurs reports whether a path has what was written here.
func isOurs(path string, known original) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		// Removed by somebody, or by a call before that was cut off.
		return known.Kind != nothing, nil
	}
	if err != nil {
		return false, err
	}

	sum, err := sumAt(path)
	return slices.Contains(known.Written, sum), err
}

// sumAt is the sum of what is at a path: of a file, or of where a link leads; empty: of neither.
func sumAt(path string) (string, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}

	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		return sumOf([]byte(target)), err
	}
	if !info.Mode().IsRegular() {
		return "", nil
	}
	data, err := os.ReadFile(path)
	return sumOf(data), err
}

func (o *Originals) giveBack(known original) error {
	switch known.Kind {
	case file:
		data, err := os.ReadFile(o.content(known.Path))
		if err != nil {
			return err
		}
		return durable.WriteOwned(known.Path, data, known.Mode, known.UID, known.GID)
	case link:
		if err := os.Remove(known.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.Symlink(known.Link, known.Path)
	}

	if err := os.Remove(known.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(filepath.Dir(known.Path))
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
