package localstorage

import (
	"context"
	"fmt"
	"maps"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/diskusage"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

// ask has the runtime say what containers have written, if it may be more than it said before. activities are
// those of the pods that are asked for.
func (m *Meter) ask(ctx context.Context, activities map[types.UID]int64) error {
	if !m.outdated(activities) {
		return nil
	}

	// Which run is asked first: what has ended by the time of the figures takes nothing any more.
	running, err := m.running(ctx)
	if err != nil {
		return err
	}

	stats, err := m.cfg.Runtime.Stats(ctx)
	if err != nil {
		return fmt.Errorf("what containers have written: %w", err)
	}

	layers := map[types.UID]map[string]Usage{}
	for _, s := range stats {
		uid := types.UID(s.Pod.UID)
		for _, c := range s.Containers {
			if !running[c.ID] {
				continue
			}

			if layers[uid] == nil {
				layers[uid] = map[string]Usage{}
			}

			layers[uid][c.Name] = layerOf(c)
		}
	}

	m.mu.Lock()
	defer m.mu.Unlock()

	for uid := range activities {
		k := m.known[uid]
		k.layers = layers[uid]
		k.answered = true
		m.known[uid] = k
	}

	return nil
}

// outdated reports whether the figures of one of the pods are from before it ran last.
func (m *Meter) outdated(activities map[types.UID]int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()

	outdated := false
	for uid, activity := range activities {
		k, found := m.known[uid]
		if !found || k.activity != activity || activity == diskusage.Unknown {
			k = known{activity: activity, since: time.Now()}
			m.known[uid] = k
		}

		outdated = outdated || !k.answered
		for _, layer := range k.layers {
			if layer.Time.Before(k.since) {
				outdated = true
			}
		}
	}

	return outdated
}

// running returns the containers that run, by ID. As with kubelet, those that have ended do not count.
func (m *Meter) running(ctx context.Context) (map[string]bool, error) {
	found, err := m.cfg.Runtime.Containers(ctx, runtime.Selection{Running: true})
	if err != nil {
		return nil, fmt.Errorf("containers that run: %w", err)
	}

	out := make(map[string]bool, len(found))
	for _, c := range found {
		out[c.ID] = c.State == plan.Running
	}

	return out, nil
}

func layerOf(c runtime.ContainerStats) Usage {
	if c.Rootfs == nil {
		return Usage{}
	}

	out := Usage{Time: c.Rootfs.Time.Time}
	if c.Rootfs.UsedBytes != nil {
		out.Bytes = *c.Rootfs.UsedBytes
	}
	if c.Rootfs.InodesUsed != nil {
		out.Inodes = *c.Rootfs.InodesUsed
	}

	return out
}

// layers returns the writable layers of a pod's containers, by name.
func (m *Meter) layers(uid types.UID) map[string]Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.known[uid].layers)
}
