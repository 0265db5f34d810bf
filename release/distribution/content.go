package distribution

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/trivet-node/trivet/internal/debian"
	"github.com/trivet-node/trivet/internal/tarfile"
	"github.com/trivet-node/trivet/release/part"
	"github.com/trivet-node/trivet/release/sbom"
)

// tools is what an image has of Debian's packages.
type tools struct {
	files    []tarfile.File
	packages []debian.Package
}

// collectTools takes what all images need of Debian's packages.
func (w *writer) collectTools(ctx context.Context) error {
	for _, p := range part.Parts {
		for _, arch := range Architectures {
			tools, err := w.toolsOf(ctx, p, arch)
			if err != nil {
				return fmt.Errorf("what %s for %s has of Debian: %w", p.Name, arch, err)
			}

			w.tools[p.Name+"/"+arch] = tools
		}
	}
	return nil
}

// toolsOf takes the programs of Debian's packages that an image needs, and the copyright files of all
// packages that they are from.
func (w *writer) toolsOf(ctx context.Context, p part.Part, arch string) (t tools, err error) {
	if len(p.Image.Packages) == 0 {
		return t, nil
	}

	tree, err := w.mirrors[arch].Unpack(ctx, p.Image.Packages...)
	if err != nil {
		return t, err
	}

	if t.files, err = tree.Programs(p.Image.Tools); err != nil {
		return t, err
	}

	for _, dir := range p.Image.Trees {
		files, err := tree.Below(dir)
		if err != nil {
			return t, err
		}

		t.files = append(t.files, files...)
	}

	t.packages = tree.Owners(t.files)
	for _, owner := range t.packages {
		copyright, err := tree.Copyright(owner)
		if err != nil {
			return t, err
		}

		t.files = append(t.files, copyright)
	}

	slices.SortFunc(t.files, byPath)
	return t, nil
}

// writeLists writes what is in each part, in its packages and in its image.
func (w *writer) writeLists(context.Context) error {
	for _, p := range part.Parts {
		subject := sbom.Subject{
			Name:    p.Name,
			Version: w.Version,
			Time:    w.Time,
		}
		for _, arch := range Architectures {
			for _, program := range p.Shipped() {
				subject.Programs = append(subject.Programs, sbom.Program{
					Name: program.Name,
					Arch: arch,
					File: w.program(arch, program.Name),
				})
			}
			subject.Packages = append(subject.Packages, w.tools[p.Name+"/"+arch].packages...)
		}

		var list bytes.Buffer
		if err := sbom.Write(&list, subject); err != nil {
			return err
		}

		w.lists[p.Name] = list.Bytes()
		name := fmt.Sprintf("sbom/%s_%s.cdx.json", p.Name, w.Version)
		if err := w.write(name, 0o644, list.Bytes()); err != nil {
			return err
		}
	}
	return nil
}
