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
func (c Comparison) RunMixed(ctx context.Context) (all []Outcome) {
	for _, n := range mixed {
		o := Outcome{Network: n.name, Skipped: n.lacks()}
		if o.Skipped == "" {
			o.Err = c.mix(ctx, n, &o)
		}
		all = append(all, o)
	}
	return all
}

func (c Comparison) mix(ctx context.Context, n network, o *Outcome) (err error) {
	h, err := newHost(n, filepath.Join(c.Work, "mixed"))
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
