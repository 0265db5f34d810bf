package images

import (
	"context"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/internal/debian"
)

// packages is what a layer has of Debian's packages.
type packages struct {
	names []string

	// programs are the paths in the image, each with the name of the program in its package. The shared
	// libraries that they need come along: from the packages, else from the host.
	programs map[string]string

	// trees are directories of the packages, MULTIARCH for that of the architecture.
	trees []string
}

// packaged returns the files that p names.
func (in *inputs) packaged(ctx context.Context, p packages) ([]file, error) {
	mirror := debian.Host(runtime.GOARCH, filepath.Join(in.dir, "deb-"+p.names[0]))
	tree, err := mirror.Unpack(ctx, p.names...)
	if err != nil {
		return nil, err
	}

	files, err := tree.Programs(p.programs)
	if err != nil {
		return nil, err
	}

	for _, dir := range p.trees {
		more, err := tree.Below(dir)
		if err != nil {
			return nil, err
		}

		// Plugins of a program, which it loads itself.
		needed, err := tree.Libraries(more)
		if err != nil {
			return nil, err
		}

		files = slices.Concat(files, more, needed)
	}

	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.Path, b.Path) })
	return slices.CompactFunc(files, func(a, b file) bool { return a.Path == b.Path }), nil
}

// hosted is a program of the host with its libraries, nothing where there is none.
func hosted(name, path string) ([]file, error) {
	return debian.HostProgram(runtime.GOARCH, name, path)
}
