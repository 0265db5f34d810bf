package survey

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/csi/btrfspool"
)

// Key is the key file of an encrypted volume. What is in it is not looked at.
type Key struct {
	Path    string
	Backend string
	ID      string // of the volume
}

// keysIn returns the key files in a directory, which has a directory for each backend.
func keysIn(dir string) ([]Key, error) {
	backends, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}

	var keys []Key
	for _, backend := range backends {
		path := filepath.Join(dir, backend.Name())
		files, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			keys = append(keys, Key{filepath.Join(path, f.Name()), backend.Name(), f.Name()})
		}
	}
	return keys, nil
}

// Claims reports whether there is a record of the volume of a key file, or may be what is in it.
func (s Survey) Claims(key Key) bool {
	if r, known := s.Records[key.ID]; known && (r.Err != nil || r.Backend == key.Backend) {
		return true
	}

	_, there := s.Images[key.ID]
	if key.Backend == btrfspool.Name {
		_, there = s.Pool.Volumes[key.ID]
		return there || !s.Pool.Open
	}
	return there
}
