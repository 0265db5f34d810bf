package imagegc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trivet-node/trivet/node/runtime"
)

// look returns the images of the runtime with what is known of their use.
func (c *Collector) look(ctx context.Context, now time.Time) ([]image, error) {
	// Images first: one that comes later is not in the list, and one that a container begins to use later is
	// held for its pod.
	listed, err := c.cfg.Runtime.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}

	used, err := c.used(ctx)
	if err != nil {
		return nil, err
	}

	held := c.holds.current()
	ids := make(map[string]bool, len(listed))
	out := make([]image, 0, len(listed))
	for _, i := range listed {
		ids[i.ID] = true
		out = append(out, image{
			id:     i.ID,
			size:   int64(i.Size),
			pinned: i.Pinned,
			inUse:  held[i.ID] || isAmong(i, used),
		})
	}

	c.holds.listed(ids)
	c.records.update(out, now)
	c.saveRecords()
	return out, nil
}

// saveRecords writes what is known of images. A full disk must not keep it from being emptied.
func (c *Collector) saveRecords() {
	if err := c.records.save(); err != nil {
		c.cfg.Log.Warn("what is known of images would be lost by a restart", "err", err)
	}
}

// isAmong reports whether an image is one of the references. That of a container is the image's ID, or one of
// its digests where a runtime does not say more.
func isAmong(i *runtime.Image, references map[string]bool) bool {
	if references[i.ID] {
		return true
	}
	for _, names := range [][]string{i.RepoDigests, i.RepoTags} {
		for _, name := range names {
			if references[name] {
				return true
			}
		}
	}
	return false
}

// used returns the references of the images that containers run from or have mounted, also those that have
// ended.
func (c *Collector) used(ctx context.Context) (map[string]bool, error) {
	containers, err := c.cfg.Runtime.Containers(ctx, runtime.Selection{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}

	out := map[string]bool{}
	mounted := make(map[string][]string, len(containers))
	for _, one := range containers {
		out[one.ImageID] = true

		images, known := c.mounted[one.ID]
		if !known {
			status, err := c.cfg.Runtime.ContainerStatus(ctx, one.ID)
			if errors.Is(err, runtime.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("mounts of container %s: %w", one.ID, err)
			}

			images = status.Images
		}

		mounted[one.ID] = images
		for _, i := range images {
			out[i] = true
		}
	}

	c.mounted = mounted
	return out, nil
}
