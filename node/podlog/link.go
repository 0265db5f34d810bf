package podlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Link is a link to the log of a container, which is not there.
type Link struct {
	path string

	// Container is the ID of the container.
	Container string
}

// DeadLinks returns the links to logs that are not there. Links of others, and those that do not say of which
// container they are, are not among them.
func (l Logs) DeadLinks() ([]Link, error) {
	entries, err := os.ReadDir(l.Links)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}

	root := filepath.Clean(l.Root) + string(filepath.Separator)
	var out []Link
	for _, e := range entries {
		path := filepath.Join(l.Links, e.Name())
		target, err := os.Readlink(path)
		if err != nil || !strings.HasPrefix(target, root) {
			continue
		}
		if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
			continue
		}

		// The name is cut where the name of a file must end.
		name, complete := strings.CutSuffix(e.Name(), suffix)
		dash := strings.LastIndexByte(name, '-')
		if complete && dash >= 0 && len(e.Name()) < longestName {
			out = append(out, Link{path: path, Container: name[dash+1:]})
		}
	}

	return out, nil
}

// Remove removes the link. One that is gone is a success.
func (l Link) Remove() error {
	if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
