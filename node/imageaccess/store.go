package imageaccess

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
)

const (
	version = "kubelet.config.k8s.io/v1beta1"
	// alpha is what kubelets before 1.35 wrote.
	alpha  = "kubelet.config.k8s.io/v1alpha1"
	prefix = "sha256-"
	// maxRecord bounds the bytes of a file.
	maxRecord = 1 << 20
)

// store is a directory of kubelet's records: one JSON file each, named by the SHA-256 of what it is about.
type store struct{ dir string }

func (s store) path(key string) string { return filepath.Join(s.dir, fileName(key)) }

func fileName(key string) string { return fmt.Sprintf("%s%x", prefix, sha256.Sum256([]byte(key))) }

// write replaces a file. A durable one survives a power loss.
func (s store) write(key string, v any, durably bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > maxRecord {
		return fmt.Errorf("%d bytes: %w", len(data), boundedfile.ErrTooLarge)
	}

	data = append(data, '\n')
	if durably {
		return durable.WriteFile(s.path(key), data, 0o600)
	}

	return durable.WriteVolatile(s.path(key), data, 0o600)
}

// sweep removes what writers that were killed have left. There must be no other writer.
func (s store) sweep() error {
	// The name of every file begins with the prefix.
	return durable.Sweep(filepath.Join(s.dir, strings.TrimSuffix(prefix, "-")))
}

// remove removes a file, if it is there.
func (s store) remove(name string) error {
	if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// record reads the record of an image. One that is there but cannot be read is an error, not an unknown
// image.
func (s store) record(id string) (r record, found bool, err error) {
	err = read(s.path(id), "ImagePulledRecord", &r)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, false, nil
	}
	if err == nil && r.ImageRef != id {
		err = fmt.Errorf("%s: record of image %q", s.path(id), r.ImageRef)
	}

	return r, err == nil, err
}

// file is one file of a store.
type file struct {
	name    string
	written time.Time
}

// files lists the store, without the temporary files of a writer that was killed.
func (s store) files() ([]file, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}

	var out []file
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}

		// An error says that it has been removed meanwhile.
		if info, err := e.Info(); err == nil {
			out = append(out, file{e.Name(), info.ModTime()})
		}
	}

	return out, nil
}

// intent reads the intent in a file.
func (s store) intent(f file) (i intent, err error) {
	err = read(filepath.Join(s.dir, f.name), "ImagePullIntent", &i)
	return i, err
}

// read decodes a file of the named kind.
func read(path, kind string, into interface{ is() typed }) error {
	data, err := boundedfile.Read(path, maxRecord)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}

	if t := into.is(); t.Kind != kind || (t.APIVersion != version && t.APIVersion != alpha) {
		return fmt.Errorf("%s: is a %s of %s, not a %s of %s", path, t.Kind, t.APIVersion, kind, version)
	}

	return nil
}
