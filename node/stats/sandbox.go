package stats

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

// sandboxes returns the figures of all pods, sorted by name: of the newest sandbox of each and, as with
// kubelet, of its running containers. The figures of one that has ended, as those of an init container, do
// not count. started is when the running containers were made, by ID.
func (c *Collector) sandboxes(
	ctx context.Context,
) (pods []runtime.PodStats, started map[string]time.Time, err error) {
	all, err := c.cfg.Runtime.Stats(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("statistics of the container runtime: %w", err)
	}
	if started, err = c.running(ctx); err != nil {
		return nil, nil, err
	}

	newest := map[string]runtime.PodStats{}
	for _, s := range all {
		name := s.Pod.Namespace + "/" + s.Pod.Name + "/" + s.Pod.UID
		if old, ok := newest[name]; !ok || old.Attempt < s.Attempt {
			newest[name] = s
		}
	}

	for _, name := range slices.Sorted(maps.Keys(newest)) {
		s := newest[name]
		s.Containers = slices.DeleteFunc(s.Containers, func(one runtime.ContainerStats) bool {
			_, runs := started[one.ID]
			return !runs
		})

		pods = append(pods, s)
	}

	return pods, started, nil
}

// running returns when the running containers were made, by ID. That is a moment before they started; a list
// has no other time.
func (c *Collector) running(ctx context.Context) (map[string]time.Time, error) {
	found, err := c.cfg.Runtime.Containers(ctx, runtime.Selection{Running: true})
	if err != nil {
		return nil, fmt.Errorf("containers of the container runtime: %w", err)
	}
	out := map[string]time.Time{}
	for _, one := range found {
		if one.State == plan.Running {
			out[one.ID] = one.Created
		}
	}
	return out, nil
}
