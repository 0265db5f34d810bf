package csivolume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/csivolume/record"
)

const (
	// statsAge is how old what a driver says of a volume may be before it is asked again, kubelet's default
	// (volumeStatsAggPeriod).
	statsAge = time.Minute

	// statsPatience is how long a caller waits for drivers in all. A figure that takes longer is there for a
	// later call.
	statsPatience = time.Second
)

// VolumeStats is what a driver says of a volume that is published to a pod.
type VolumeStats struct {
	Pod types.UID

	// Volume is the name of the volume in the pod. It is empty if kubelet has published the volume, whose
	// records do not have it.
	Volume string

	// Spec is the name of the persistent volume, or that of the volume in the pod for one without.
	Spec   string
	Driver string
	Block  bool

	// FsStats are sizes in bytes and numbers of inodes. What the driver does not say is nil.
	statsapi.FsStats
}

// statistics keeps what drivers have said.
type statistics struct {
	// mu guards what follows.
	mu sync.Mutex

	// known are the answers by the target of the volume.
	known map[string]answer

	// asking has the drivers that are being asked. The channel is closed when they have answered.
	asking map[string]chan struct{}
}

func newStatistics() *statistics {
	return &statistics{known: map[string]answer{}, asking: map[string]chan struct{}{}}
}

// answer is what a driver has said last, and when it was asked. It is nil after an error.
type answer struct {
	at    time.Time
	stats *statsapi.FsStats
}

// VolumeStats returns what the drivers say of the volumes that are published to pods (NodeGetVolumeStats),
// for those that can. A driver is asked for a volume at most once in a minute, one call after the other. One
// that does not answer keeps neither the caller nor the others.
func (m *Mounter) VolumeStats(ctx context.Context) ([]VolumeStats, error) {
	volumes, err := m.published()
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, statsPatience)
	defer cancel()
	for _, asked := range m.ask(volumes) {
		select {
		case <-asked:
		case <-ctx.Done():
		}
	}

	return m.stats.of(volumes), nil
}

// published finds the volumes that pods have, by their records.
func (m *Mounter) published() ([]place, error) {
	pods, err := os.ReadDir(filepath.Join(m.cfg.Root, "pods"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list published volumes: %w", err)
	}

	var out []place
	for _, pod := range pods {
		uid := types.UID(pod.Name())
		for block, kind := range map[bool]string{false: "volumes", true: "volumeDevices"} {
			// Most pods have none.
			entries, err := os.ReadDir(filepath.Join(m.cfg.Root, "pods", pod.Name(), kind, plugin))
			if err != nil {
				continue
			}

			for _, e := range entries {
				if one, found := m.publishedAs(uid, e.Name(), block); found {
					out = append(out, one)
				}
			}
		}
	}

	return out, nil
}

// publishedAs reads the record of a volume. One that is still being published is not found. The mount is not
// looked at: the server of its file system may not answer.
func (m *Mounter) publishedAs(pod types.UID, spec string, block bool) (place, bool) {
	p := m.dirs.place(pod, spec, "", "", block)
	r, found, err := record.Read(p.readyFile())
	if !found || err != nil || r.Ready != m.boot {
		return place{}, false
	}

	p.Record = r
	return p, true
}

// ask has drivers asked for the volumes whose figures are too old. It returns what to wait for.
func (m *Mounter) ask(volumes []place) []chan struct{} {
	m.stats.mu.Lock()
	defer m.stats.mu.Unlock()

	due := map[string][]place{}
	there := map[string]bool{}
	for _, v := range volumes {
		there[v.target] = true
		if time.Since(m.stats.known[v.target].at) >= statsAge {
			due[v.Driver] = append(due[v.Driver], v)
		}
	}

	// What is known of volumes that are gone is forgotten.
	maps.DeleteFunc(m.stats.known, func(target string, _ answer) bool { return !there[target] })

	var waiting []chan struct{}
	for name, volumes := range due {
		driver, err := m.cfg.Drivers.Driver(name)
		if err != nil || !driver.Can(csi.NodeServiceCapability_RPC_GET_VOLUME_STATS) {
			continue
		}

		if asked, busy := m.stats.asking[name]; busy {
			waiting = append(waiting, asked)
			continue
		}

		asked := make(chan struct{})
		m.stats.asking[name] = asked
		waiting = append(waiting, asked)
		go m.stats.round(driver, volumes, asked)
	}

	return waiting
}

// round asks a driver for its volumes, until one call gets no answer in time.
func (s *statistics) round(driver *csiplugin.Driver, volumes []place, asked chan struct{}) {
	defer close(asked)
	for _, v := range volumes {
		stats, err := ask(driver, v)
		s.mu.Lock()
		s.known[v.target] = answer{at: time.Now(), stats: stats}
		s.mu.Unlock()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.asking, driver.Name)
}

// ask asks a driver for one volume.
func ask(driver *csiplugin.Driver, p place) (*statsapi.FsStats, error) {
	ctx, cancel := context.WithTimeout(context.Background(), rpcTimeout)
	defer cancel()

	request := &csi.NodeGetVolumeStatsRequest{VolumeId: p.Handle, VolumePath: p.target}
	said, err := driver.Node.NodeGetVolumeStats(ctx, request)
	if err != nil {
		// gRPC has its own code for it.
		return nil, errors.Join(err, ctx.Err())
	}

	return fsStats(said.Usage), nil
}

// fsStats puts what a driver says into the terms of the statistics API.
func fsStats(usage []*csi.VolumeUsage) *statsapi.FsStats {
	out := &statsapi.FsStats{Time: metav1.Now()}
	for _, u := range usage {
		switch u.GetUnit() {
		case csi.VolumeUsage_BYTES:
			out.AvailableBytes = amount(u.Available)
			out.CapacityBytes = amount(u.Total)
			out.UsedBytes = amount(u.Used)
		case csi.VolumeUsage_INODES:
			out.InodesFree = amount(u.Available)
			out.Inodes = amount(u.Total)
			out.InodesUsed = amount(u.Used)
		}
	}
	return out
}

// amount is a number that cannot be negative, whatever the driver says.
func amount(n int64) *uint64 { return new(uint64(max(n, 0))) }

// of returns the figures of volumes that are known.
func (s *statistics) of(volumes []place) []VolumeStats {
	s.mu.Lock()
	defer s.mu.Unlock()

	var out []VolumeStats
	for _, v := range volumes {
		stats := s.known[v.target].stats
		if stats == nil {
			continue
		}
		out = append(out, VolumeStats{
			Pod:     v.pod,
			Volume:  v.Volume,
			Spec:    v.SpecName,
			Driver:  v.Driver,
			Block:   v.link != "",
			FsStats: *stats,
		})
	}

	return out
}
