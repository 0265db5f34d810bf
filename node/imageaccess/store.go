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
	version   = "kubelet.config.k8s.io/v1beta1"
	alpha     = "kubelet.config.k8s.io/v1alpha1" // as kubelets before 1.35 wrote
	prefix    = "sha256-"
	maxRecord = 1 << 20 // bytes of a file
)

// store is a directory of kubelet's records: one JSON file each, named by the SHA-256 of what it is about.
type store struct{ dir string }

func (s store) path(key string) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s%x", prefix, sha256.Sum256([]byte(key))))
}

// write is durable: an image that survives a power loss without its record would count as a preloaded one.
func (s store) write(key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > maxRecord {
		return fmt.Errorf("%d bytes: %w", len(data), boundedfile.ErrTooLarge)
	}
	return durable.WriteFile(s.path(key), append(data, '\n'), 0o600)
}

func (s store) remove(key string) error {
	if err := os.Remove(s.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// records reads all that can be read.
func (s store) records() (out []record, err error) {
	err = s.each(func(path string, _ time.Time) error {
		var r record
		if err := read(path, "ImagePulledRecord", &r); err != nil {
			return err
		}
		out = append(out, r)
		return nil
	})
	return out, err
}

// intents reads all that can be read.
func (s store) intents() (out []intent, err error) {
	err = s.each(func(path string, written time.Time) error {
		var i intent
		if err := read(path, "ImagePullIntent", &i); err != nil {
			return err
		}
		i.written = written
		out = append(out, i)
		return nil
	})
	return out, err
}

// each calls what for every file of the directory that is a record. Others (temporary ones of a writer that
// was killed) are left alone.
func (s store) each(what func(path string, written time.Time) error) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		info, err := e.Info()
		if err == nil {
			err = what(filepath.Join(s.dir, e.Name()), info.ModTime())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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
