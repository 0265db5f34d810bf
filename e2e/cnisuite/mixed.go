package cnisuite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// RunMixed has the plugins of both programs work in one chain: ADD, CHECK and DEL, after which nothing of the
// container may be left.
func (c Comparison) RunMixed(ctx context.Context) []Outcome {
	// What is left in /run/cni is looked for, which all of them share.
	return each(mixed, 1, func(n network, dir string, o *Outcome) error { return c.mix(ctx, n, dir, o) })
}

func (c Comparison) mix(ctx context.Context, n network, name string, o *Outcome) (err error) {
	h, err := newHost(n, filepath.Join(c.Work, name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()

	dir, err := c.directory(h, n)
	if err != nil {
		return err
	}

	cni := h.plugins(dir)
	return inside(h.netns, func() error {
		if _, err := h.add(ctx, cni); err != nil {
			return err
		}

		check := h.check(ctx, n, cni)
		if err := cni.DelNetworkList(ctx, h.list, h.runtime); err != nil {
			return errors.Join(check, err)
		}

		o.Left = remains(h.dir)
		return check
	})
}

// directory makes one of plugins, some of which are upstream's.
func (c Comparison) directory(h *host, n network) (string, error) {
	dir := filepath.Join(h.dir, "bin")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}

	names, err := os.ReadDir(c.Ours)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if strings.HasPrefix(name.Name(), ".") || slices.Contains(n.theirs, name.Name()) {
			continue
		}
		own := filepath.Join(c.Ours, name.Name())
		if err := os.Symlink(own, filepath.Join(dir, name.Name())); err != nil {
			return "", err
		}
	}
	for _, name := range n.theirs {
		if err := os.Symlink(filepath.Join(c.Theirs, name), filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}

	return dir, nil
}
