package staging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/removal"
	"github.com/trivet-node/trivet/node/csivolume/record"
)

// List returns the places of all volumes that are staged, or that a driver may still be staging, by their
// records: those that kubelet has left, too. What has no whole record was lost with an earlier boot; it is
// removed, unless something is mounted in it: then unread has the error. No volume may be staged meanwhile.
func List(root string) (places []Place, unread []error, err error) {
	l := lister{root: root}
	drivers, err := entries(plugins(root))
	if err != nil {
		return nil, nil, err
	}

	for _, driver := range drivers {
		if driver == devices {
			err = l.blocks()
		} else {
			err = l.mounts(filepath.Join(plugins(root), driver))
		}
		if err != nil {
			return nil, nil, err
		}
	}

	return l.places, l.unread, nil
}

// lister collects what List returns.
type lister struct {
	root   string
	places []Place
	unread []error
}

// mounts finds the file systems of a driver.
func (l *lister) mounts(driver string) error {
	volumes, err := entries(driver)
	if err != nil {
		return err
	}

	for _, volume := range volumes {
		dir := filepath.Join(driver, volume)
		l.add(filepath.Join(dir, record.File), func(r record.Record) Place {
			return mountedIn(dir, r.Driver, r.Handle)
		}, func() error { return removal.Tree(dir) })
	}

	return nil
}

// blocks finds the block volumes. The record of a volume is there longer than that of its staging, which
// kubelet does not have.
func (l *lister) blocks() error {
	specs, err := entries(Devices(l.root))
	if err != nil {
		return err
	}

	for _, spec := range specs {
		if spec == "staging" || spec == "publish" {
			continue
		}

		dir := filepath.Join(Devices(l.root), spec)
		l.add(filepath.Join(dir, data, record.File), func(r record.Record) Place {
			return OfBlock(l.root, spec, r.Driver, r.Handle)
		}, func() error { return removeEmpty(dir) })
	}

	return nil
}

// add enters the volume of the record in a file, or removes what is there of one without a record.
func (l *lister) add(file string, place func(record.Record) Place, remove func() error) {
	r, found, err := record.Read(file)
	if err == nil && found {
		l.places = append(l.places, place(r))
		return
	}
	if err == nil {
		err = remove()
	}
	if err != nil {
		l.unread = append(l.unread, fmt.Errorf("record %s of a staged volume: %w", file, err))
	}
}

// entries are the names of the directories in a directory, which need not exist.
func entries(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list staged volumes: %w", err)
	}

	var names []string
	for _, e := range all {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
