// Package images builds the images that a cluster without an internet connection needs, under their official
// names: busybox, pause, CoreDNS, metrics-server, the images of the published test suites, and trivet/demo.
// They are made of programs built through the Go module proxy and of programs of Debian's packages with the
// libraries they link; docs/images.md says which are the real ones and which are stand-ins. A set of images
// is an OCI image layout whose index names each image in the annotation org.opencontainers.image.ref.name.
// Equal inputs give equal digests.
package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// RefName is the annotation that holds an image's name in the index of a layout.
const RefName = "org.opencontainers.image.ref.name"

// Builder has the inputs.
type Builder struct {
	Source string // root of the repository

	// Programs is a directory with programs that are built already (e2e/build.sh).
	Programs string

	Say func(format string, args ...any)
}

// Build writes the layout of a set to dir, which it replaces. Only what the set's images are made of is
// built.
func (b *Builder) Build(ctx context.Context, set, dir string) error {
	at := slices.IndexFunc(sets, func(s imageSet) bool { return s.name == set })
	if at < 0 {
		return fmt.Errorf("no set of images is called %q, only %v", set, Sets())
	}

	// A build that was killed may have left one.
	work := filepath.Clean(dir) + ".new"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer os.RemoveAll(work)

	fresh := filepath.Join(work, "layout")
	a := assembly{
		inputs: &inputs{builder: b, dir: work, built: map[string]string{}},
		makers: layers(),
		say:    b.Say,
	}
	if err := a.write(ctx, fresh, sets[at].images); err != nil {
		return err
	}

	return replaceDir(dir, fresh)
}

// replaceDir puts fresh where dir is. A reader that has files of the old one open keeps them.
func replaceDir(dir, fresh string) error {
	old := dir + ".old"
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
