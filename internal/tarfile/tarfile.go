// Package tarfile writes tar archives from lists of files. Equal lists give equal bytes: all entries have the
// same time and owner, directories that the list leaves out are added, and the order is the caller's.
package tarfile

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"
)

// File of an archive. It has one of Data, Source, Link or Hard; a path that ends with a slash is a directory.
type File struct {
	// Path is relative to the root of the archive.
	Path string

	Mode int64
	Data []byte

	// Source is a file of this machine.
	Source string

	// Link is the target of a symbolic link, Hard the path of the file that this is another name of.
	Link string
	Hard string
}

// Form is what the entries of an archive have in common.
type Form struct {
	// Prefix stands before each path. One that ends with a slash is a directory of its own: "./".
	Prefix string

	// Time is when all files were changed. The zero value is the beginning of 1970.
	Time time.Time

	// Owner is the name of user and group 0, if the archive has names.
	Owner string
}

// Write writes an archive.
func Write(w io.Writer, form Form, files []File) error {
	a := archive{
		form: form,
		tar:  tar.NewWriter(w),
		seen: map[string]bool{"./": true, "/": true},
	}

	if strings.HasSuffix(form.Prefix, "/") {
		if err := a.header(tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return err
		}
	}

	for _, f := range files {
		if err := a.parents(f.Path); err != nil {
			return err
		}
		if err := a.add(f); err != nil {
			return fmt.Errorf("file %s: %w", f.Path, err)
		}
	}

	return a.tar.Close()
}

// archive is one that is being written.
type archive struct {
	form Form
	tar  *tar.Writer
	seen map[string]bool
}

// parents adds the directories above a path that the archive does not have yet.
func (a *archive) parents(name string) error {
	if strings.HasSuffix(name, "/") {
		a.seen[name] = true
	}
	dir := path.Dir(strings.TrimSuffix(name, "/")) + "/"
	if a.seen[dir] {
		return nil
	}
	if err := a.parents(dir); err != nil {
		return err
	}
	return a.header(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755})
}

func (a *archive) add(f File) error {
	h := tar.Header{Name: f.Path, Mode: f.Mode}
	switch {
	case strings.HasSuffix(f.Path, "/"):
		h.Typeflag = tar.TypeDir
	case f.Link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
		h.Mode = 0o777
	case f.Hard != "":
		h.Typeflag, h.Linkname = tar.TypeLink, a.form.Prefix+f.Hard
	default:
		h.Typeflag = tar.TypeReg
		return a.regular(h, f)
	}
	return a.header(h)
}

func (a *archive) regular(h tar.Header, f File) error {
	data := f.Data
	if f.Source != "" {
		var err error
		if data, err = os.ReadFile(f.Source); err != nil {
			return err
		}
	}

	h.Size = int64(len(data))
	if err := a.header(h); err != nil {
		return err
	}

	_, err := a.tar.Write(data)
	return err
}

func (a *archive) header(h tar.Header) error {
	h.Name = a.form.Prefix + h.Name
	h.ModTime = a.form.Time
	h.Uname, h.Gname = a.form.Owner, a.form.Owner
	return a.tar.WriteHeader(&h)
}
