// Package distribution writes a version's files: programs, images, Debian packages, lists of what is in them,
// and one archive with all. Equal sources, programs and packages of Debian give equal files.
package distribution

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/trivet-node/trivet/internal/debian"
	"github.com/trivet-node/trivet/release/license"
	"github.com/trivet-node/trivet/release/part"
)

// Architectures are those that a version is for, named as Go and Debian do.
var Architectures = []string{"amd64", "arm64"}

// Config says what is delivered.
type Config struct {
	// Version is v1.2.3, also with a suffix such as -rc.1.
	Version string

	// Revision is the commit.
	Revision string

	// Time is that of the commit. All files of a version are of that time.
	Time time.Time

	// Source is the root of the repository.
	Source string

	// Programs is a directory with the programs in ARCHITECTURE/NAME.
	Programs string

	// Cache keeps Debian's packages.
	Cache string

	// Say is called once for each file.
	Say func(format string, args ...any)
}

var versionForm = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)

// Write replaces a directory by the files of the version. Until all are written, it stays as it was.
func Write(ctx context.Context, cfg Config, dir string) error {
	if !versionForm.MatchString(cfg.Version) {
		return fmt.Errorf("version %q is not of the form v1.2.3 or v1.2.3-rc.1", cfg.Version)
	}

	// A run that was killed may have left one.
	fresh := filepath.Clean(dir) + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	defer os.RemoveAll(fresh)

	w := writer{
		Config:  cfg,
		dir:     fresh,
		mirrors: map[string]*debian.Mirror{},
		tools:   map[string]tools{},
		lists:   map[string][]byte{},
	}
	for _, arch := range Architectures {
		w.mirrors[arch] = debian.For(arch, filepath.Join(cfg.Cache, arch))
	}

	for _, step := range []func(context.Context) error{
		w.writePrograms,
		w.collectLicenses,
		w.collectTools,
		w.writeLists,
		w.writeImages,
		w.writePackages,
		w.writeArchive,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}

	return replace(dir, fresh)
}

// replace puts fresh in the place of dir.
func replace(dir, fresh string) error {
	old := filepath.Clean(dir) + ".old"
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// writer writes one version.
type writer struct {
	Config

	// dir is where files are written.
	dir string

	// mirrors are Debian's, by architecture.
	mirrors map[string]*debian.Mirror

	// tools are what images have of Debian's packages, by PART/ARCHITECTURE.
	tools map[string]tools

	// lists are the SBOMs, by part.
	lists map[string][]byte

	// licenses are those of everything that is linked into programs.
	licenses []byte
}

// program is the file of a program that was built.
func (w *writer) program(arch, name string) string { return filepath.Join(w.Programs, arch, name) }

// deployed is a file of a part below deploy.
func (w *writer) deployed(p part.Part, name string) string {
	return filepath.Join(w.Source, "deploy", p.Deploy, name)
}

// writePrograms copies the programs.
func (w *writer) writePrograms(context.Context) error {
	for _, arch := range Architectures {
		for _, p := range part.Parts {
			for _, program := range p.Programs {
				data, err := os.ReadFile(w.program(arch, program.Name))
				if err != nil {
					return err
				}
				if err := w.write("linux-"+arch+"/"+program.Name, 0o755, data); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// collectLicenses reads the licences that all packages and images have.
func (w *writer) collectLicenses(ctx context.Context) (err error) {
	var programs []string
	for _, arch := range Architectures {
		for _, p := range part.Parts {
			for _, program := range p.Shipped() {
				programs = append(programs, w.program(arch, program.Name))
			}
		}
	}
	w.licenses, err = license.Collector{Dir: w.Source}.Collect(ctx, programs)
	return err
}

// write writes a file of the version, and says so.
func (w *writer) write(name string, mode os.FileMode, data []byte) error {
	if err := w.put(name, mode, data); err != nil {
		return err
	}
	w.Say("%-48s %8.1f KiB", name, float64(len(data))/(1<<10))
	return nil
}

// put writes a file of the version. Whose umask it is must not show in the archive.
func (w *writer) put(name string, mode os.FileMode, data []byte) error {
	path := filepath.Join(w.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}
