package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/e2e/pki"
)

// nodeFiles is the directory of a machine's files that survive its reboot, as the host sees it. Paths are
// those inside the machine.
type nodeFiles string

// path is where the host has a file of the machine.
func (d nodeFiles) path(file string) string { return filepath.Join(string(d), file) }

// write writes files, path -> content. A file that has the content is not touched.
func (d nodeFiles) write(files map[string]string) error {
	for path, text := range files {
		file := d.path(path)
		if old, err := os.ReadFile(file); err == nil && string(old) == text {
			continue
		}

		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}

	return nil
}

// copySecrets copies files of the PKI into a directory, from -> to.
func (d nodeFiles) copySecrets(from pki.Dir, dir string, files map[string]string) error {
	for source, target := range files {
		data, err := os.ReadFile(from.Path(source))
		if err != nil {
			return err
		}

		file := d.path(filepath.Join(dir, target))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return err
		}
	}

	return nil
}

// link makes links to programs, name -> program, in a directory. The machine sees the programs under the same
// paths; they are never executed on the host.
func (d nodeFiles) link(dir string, programs map[string]string) error {
	dir = d.path(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}

	for name, program := range programs {
		err := os.Symlink(program, filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}

	return nil
}
