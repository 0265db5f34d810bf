package staging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/node/csivolume/record"
)

// List returns the places of all volumes that are staged, or that a driver may still be staging, by their
// records: those that kubelet has left, too. What has no whole record was lost with an earlier boot. Empty
// directories of it are removed with what is left of the record; something else in them stays, and unread has
// an error then. No volume may be staged meanwhile.
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
		l.add([]string{dir}, func(r record.Record) Place {
			return mountedIn(dir, r.Driver, r.Handle)
		}, filepath.Join(dir, "globalmount"), dir)
	}

	return nil
}

// blocks finds the block volumes. The record that pods share is there longer than that of the staging, which
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

		own := filepath.Join(Devices(l.root), spec)
		shared, stage := filepath.Join(own, data), filepath.Join(own, "stage")
		l.add([]string{shared, stage}, func(r record.Record) Place {
			return OfBlock(l.root, spec, r.Driver, r.Handle)
		},
			filepath.Join(Devices(l.root), "staging", spec),
			filepath.Join(Devices(l.root), "publish", spec),
			filepath.Join(own, "dev"), stage, shared, own)
	}

	return nil
}

// add enters the volume of the first whole record in some directories. If there is none it removes other
// directories, in their order.
func (l *lister) add(recorded []string, place func(record.Record) Place, empty ...string) {
	err := l.find(recorded, place)
	if errors.Is(err, errNoRecord) {
		err = removeUnused(recorded, empty)
	}
	if err != nil {
		l.unread = append(l.unread, fmt.Errorf("staged volume of %s: %w", recorded[0], err))
	}
}

var errNoRecord = errors.New("no record")

// find enters the volume of the first whole record in some directories.
func (l *lister) find(recorded []string, place func(record.Record) Place) error {
	for _, dir := range recorded {
		r, found, err := record.Read(filepath.Join(dir, record.File))
		if err != nil {
			return err
		}
		if !found {
			continue
		}

		p := place(r)
		if err := p.Check(); err != nil {
			return err
		}
		l.places = append(l.places, p)
		return nil
	}

	return errNoRecord
}

// removeUnused removes empty directories, and those that have nothing but a record that is not whole, up to
// the first that has something else: what others have put there is not the agent's.
func removeUnused(recorded, dirs []string) error {
	for _, dir := range dirs {
		err := unix.Rmdir(dir)
		if errors.Is(err, unix.ENOTEMPTY) && slices.Contains(recorded, dir) {
			err = removeTorn(dir)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("no whole record, and remove %s: %w", dir, err)
		}
	}
	return nil
}

// removeTorn removes a directory that has nothing but a record that is not whole.
func removeTorn(dir string) error {
	file := filepath.Join(dir, record.File)
	if err := durable.Sweep(file); err != nil {
		return err
	}

	others, err := beside(dir)
	if err != nil {
		return err
	}
	if len(others) > 0 {
		return fmt.Errorf("%s is there", others[0])
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return unix.Rmdir(dir)
}

// beside are the names in a directory but for that of the record.
func beside(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}

	var others []string
	for _, e := range all {
		if e.Name() != record.File {
			others = append(others, e.Name())
		}
	}
	return others, nil
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
