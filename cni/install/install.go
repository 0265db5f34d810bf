// Package install puts the program into a directory of CNI plugins under the names of upstream's, and takes
// it out again. At every instant each name leads to a plugin: a file is replaced by renaming another one
// over it. What was there before is kept beside it, as a second link to the same file.
package install

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/internal/durable"
)

// Directory is one of CNI plugins, such as /opt/cni/bin.
type Directory struct {
	Path string
	// Program is the name of the program itself, which the other names lead to.
	Program string
}

// keptDir holds what was there before, inside the directory: so it is on the same file system.
const keptDir = ".trivet-cni-replaced"

func (d Directory) path(name string) string { return filepath.Join(d.Path, name) }

func (d Directory) kept(name string) string { return filepath.Join(d.Path, keptDir, name) }

// Install puts a program into the directory and has names lead to it. It may be called again, also after a
// kill.
func (d Directory) Install(source string, names []string) error {
	return d.locked(func() error {
		if err := d.sweep(); err != nil {
			return err
		}
		return d.install(source, names)
	})
}

// sweep removes what was being written when another call was killed: the lock is held.
func (d Directory) sweep() error {
	err := errors.Join(durable.Sweep(d.path(d.Program)), durable.Sweep(d.kept(copied)))
	links, _ := filepath.Glob(d.kept(newPrefix + "*"))
	for _, link := range links {
		err = errors.Join(err, removeIfThere(link))
	}
	if err != nil {
		return fmt.Errorf("remove what a killed call has left in %s: %w", d.Path, err)
	}
	return nil
}

// newPrefix begins the names of links that are about to be renamed.
const newPrefix = ".new-"

func (d Directory) install(source string, names []string) error {
	if err := d.installProgram(source); err != nil {
		return fmt.Errorf("install %s: %w", d.path(d.Program), err)
	}

	var errs []error
	for _, name := range names {
		if err := d.link(name); err != nil {
			errs = append(errs, fmt.Errorf("install %s: %w", d.path(name), err))
		}
	}

	return errors.Join(errs...)
}

// installProgram copies the program, unless it is the one that is there.
func (d Directory) installProgram(source string) error {
	target := d.path(d.Program)
	from, err := os.Stat(source)
	if err != nil {
		return err
	}
	if there, err := os.Stat(target); err == nil && os.SameFile(from, there) {
		return nil
	}

	data, err := os.ReadFile(source)
	if err != nil {
		return err
	}

	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	there := sumOf(target)
	if there == sum {
		return nil
	}

	// Until the file is replaced, what is there is still the earlier copy.
	sums := []string{sum}
	if d.isCopy() {
		sums = append(sums, there)
	} else if err := d.keep(d.Program); err != nil {
		return err
	}

	if err := durable.WriteFile(d.kept(copied), []byte(strings.Join(sums, "\n")), 0o644); err != nil {
		return err
	}

	return durable.WriteFile(target, data, 0o755)
}

// copied is a file with the SHA-256 of what Install has copied as the program itself: one a line.
const copied = ".copied"

// isCopy reports whether the program was copied by Install, and is not somebody else's since. Earlier
// versions of Install wrote no sum: of theirs only the file is known.
func (d Directory) isCopy() bool {
	sums, err := os.ReadFile(d.kept(copied))
	if err == nil && len(sums) == 0 {
		return true
	}

	there := sumOf(d.path(d.Program))
	return err == nil && there != "" && slices.Contains(strings.Fields(string(sums)), there)
}

// sumOf returns the SHA-256 of a file, or "" if it cannot be read.
func sumOf(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()

	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return ""
	}

	return fmt.Sprintf("%x", sum.Sum(nil))
}

// link has a name lead to the program.
func (d Directory) link(name string) error {
	if d.isLink(name) {
		return nil
	}
	if err := d.keep(name); err != nil {
		return err
	}

	temp := d.kept(newPrefix + name)
	if err := removeIfThere(temp); err != nil {
		return err
	}
	if err := os.Symlink(d.Program, temp); err != nil {
		return err
	}

	return os.Rename(temp, d.path(name))
}

// isLink reports whether a name leads to the program.
func (d Directory) isLink(name string) bool {
	target, err := os.Readlink(d.path(name))
	return err == nil && target == d.Program
}

// keep keeps what a name leads to now, if anything, in place of what was kept before.
func (d Directory) keep(name string) error {
	// Our own link was not there before.
	if d.isLink(name) {
		return nil
	}

	temp := d.kept(newPrefix + name)
	if err := removeIfThere(temp); err != nil {
		return err
	}

	err := os.Link(d.path(name), temp)
	if errors.Is(err, os.ErrNotExist) {
		return removeIfThere(d.kept(name))
	}
	if err != nil {
		// Some file systems have no second links.
		err = copyFile(d.path(name), temp)
	}
	if err != nil {
		return err
	}

	return os.Rename(temp, d.kept(name))
}

func copyFile(from, to string) (err error) {
	if target, err := os.Readlink(from); err == nil {
		return os.Symlink(target, to)
	}

	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()

	info, err := in.Stat()
	if err != nil {
		return err
	}

	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}

	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Uninstall has names lead to what was there before Install, or to nothing. A name that somebody has given to
// another program since stays so.
func (d Directory) Uninstall(names []string) error {
	if _, err := os.Stat(d.Path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return d.locked(func() error { return errors.Join(d.sweep(), d.uninstall(names)) })
}

func (d Directory) uninstall(names []string) error {
	var errs []error
	for _, name := range names {
		if err := d.restore(name, d.isLink(name)); err != nil {
			errs = append(errs, fmt.Errorf("uninstall %s: %w", d.path(name), err))
		}
	}

	if err := errors.Join(errs...); err != nil {
		return err
	}

	// The program goes last: until then names lead to it. After a kill, what was there may be back already.
	if err := d.restore(d.Program, d.isCopy()); err != nil {
		return err
	}

	return d.forget()
}

// restore puts back what a name led to, if what is there now is ours.
func (d Directory) restore(name string, ours bool) error {
	if !ours {
		return nil
	}
	err := os.Rename(d.kept(name), d.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return removeIfThere(d.path(name))
	}
	return err
}

func removeIfThere(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
