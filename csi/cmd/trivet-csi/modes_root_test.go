package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// private are the directories of a data directory that have what is a tenant's, or names it.
var private = []string{"pool", "pool/volumes", "images", "volumes", "groups"}

// later are those that are made when something needs them.
var later = []string{"keys", "keys/btrfs", "keys/image", "quota"}

func (p *process) checkPrivate(when string, dirs ...string) {
	p.t.Helper()
	for _, dir := range dirs {
		st, err := os.Stat(filepath.Join(p.dir, "data", dir))
		if err != nil {
			p.t.Fatal(err)
		}
		if st.Mode().Perm() != 0o700 {
			p.t.Errorf("%s: %q has mode %v", when, dir, st.Mode())
		}
	}
}

// Users of the node who are not root see nothing of volumes, also where a directory was made wider before.
func TestDirectoriesAreOfRootAlone(t *testing.T) {
	p := newProcess(t)
	l := p.life("v")
	p.do(l.create, l.stage)
	p.checkPrivate("new", append(private, "")...)

	for _, dir := range append(private, later...) {
		path := filepath.Join(p.dir, "data", dir)
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	p.end(syscall.SIGKILL)
	p.start()
	p.ready()
	p.checkPrivate("after somebody has made them wider", append(private, later...)...)
	p.do(l.publish, l.write, l.unpublish, l.unstage, l.delete)
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}
