// Package datadir knows the data directory of a node's driver by a random name, which is kept in it and in a
// file outside, the witness. So an empty directory where the disk is not mounted that has the volumes is not
// taken for a new one.
package datadir

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/durable"
)

// Place is where a data directory is.
type Place struct {
	Dir     string
	Witness string // path of a file outside, on a disk that is there whenever the node works
}

// Mismatch is a directory that is not the one that the witness names.
type Mismatch struct {
	What string
	Do   string // what a person should do
}

// Error says both.
func (m *Mismatch) Error() string { return m.What + "; " + m.Do }

// Instance returns the random name of the directory, by which its loop devices are known, too. A new
// directory gets one; a *Mismatch says that it is not new, but empty, or another one.
func (p Place) Instance() (string, error) {
	if err := p.Check(); err != nil {
		return "", err
	}
	instance, err := p.inside()
	if err != nil {
		return "", err
	}

	if instance == "" {
		// One that was lost is as it was.
		if instance, _ = p.outside(); instance == "" {
			instance = newName()
		}
		if err := durable.WriteFile(p.path(), []byte(instance+"\n"), 0o600); err != nil {
			return "", err
		}
	}

	return instance, p.testify(instance)
}

// Check returns a *Mismatch if the directory is not the one that the witness names. It changes nothing.
func (p Place) Check() error {
	instance, err := p.inside()
	if err != nil {
		return err
	}
	known, where := p.outside()
	_, missing := os.Lstat(p.path())
	empty := errors.Is(missing, fs.ErrNotExist) && !p.isUsed()

	switch {
	case known == "" || instance == known:
		return nil
	case instance != "":
		return p.mismatch("the data directory %s is another one (%s) than %s, where the volumes of this node"+
			" were kept (%s)", p.Dir, instance, where, known)
	case empty:
		return p.mismatch("the data directory %s is new or empty, and the volumes of this node were kept in"+
			" %s (%s)", p.Dir, where, known)
	}
	return nil
}

// Name is Instance for who only looks: a directory that is new has "", and so has an empty one in place of
// another. One that has lost its name has that of the witness.
func (p Place) Name() (string, error) {
	instance, err := p.inside()
	if instance == "" && p.isUsed() {
		instance, _ = p.outside()
	}
	return instance, err
}

// isUsed reports whether a driver has ever worked on the directory: it has made one for the records of
// volumes, after it had given it its name.
func (p Place) isUsed() bool {
	_, err := os.Lstat(filepath.Join(p.Dir, "volumes"))
	return err == nil
}

func (p Place) mismatch(format string, args ...any) *Mismatch {
	return &Mismatch{
		What: fmt.Sprintf(format, args...),
		Do: "mount its disk, or give its path by --data-dir; if what was in it is lost for good, or moved" +
			" to another node, remove " + p.Witness,
	}
}

// path is where the name is kept inside.
func (p Place) path() string { return filepath.Join(p.Dir, "instance") }

// inside returns the name that the directory has; "" if it has none, or a torn one.
func (p Place) inside() (string, error) {
	data, err := os.ReadFile(p.path())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	name := strings.TrimSpace(string(data))
	if len(name) != nameSize {
		name = ""
	}
	return name, err
}

// outside returns the name, and the path, of the directory that the witness names; "" if there is none.
func (p Place) outside() (instance, dir string) {
	data, err := os.ReadFile(p.Witness)
	if err != nil {
		return "", ""
	}
	instance, dir, _ = strings.Cut(strings.TrimSpace(string(data)), " ")
	if len(instance) != nameSize {
		return "", ""
	}
	return instance, dir
}

// testify has the witness name the directory.
func (p Place) testify(instance string) error {
	if known, where := p.outside(); known == instance && where == p.Dir {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(p.Witness), 0o755); err != nil {
		return err
	}
	err := durable.WriteFile(p.Witness, []byte(instance+" "+p.Dir+"\n"), 0o600)
	if errors.Is(err, unix.ENOSPC) {
		// There may be volumes for years already: the next start does it.
		return nil
	}
	return err
}

const nameSize = 8

func newName() string {
	var name [nameSize / 2]byte
	_, _ = rand.Read(name[:])
	return hex.EncodeToString(name[:])
}
