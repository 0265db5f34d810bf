package stats

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/internal/mount"
)

// driversSaid is what drivers say of volumes.
type driversSaid map[podVolume]*statsapi.FsStats

// podVolume names a volume of a pod.
type podVolume struct {
	pod    types.UID
	volume string
}

// askDrivers asks the drivers of volumes. Without an answer, the mounts are asked.
func (c *Collector) askDrivers(ctx context.Context) driversSaid {
	all, err := c.cfg.Drivers.VolumeStats(ctx)
	if err != nil {
		return nil
	}

	out := driversSaid{}
	for i := range all {
		v := &all[i]
		out[podVolume{v.Pod, v.Volume}] = &v.FsStats
	}

	return out
}

// volumes returns the figures of the volumes of a pod that a driver knows, or that are a file system of their
// own. Sizes of plain directories are not counted here.
func (c *Collector) volumes(pod *v1.Pod, said driversSaid) []statsapi.VolumeStats {
	return c.ask(pod, said, false)
}

// claims returns the figures of the volumes of a pod that are of a claim.
func (c *Collector) claims(pod *v1.Pod, said driversSaid) []statsapi.VolumeStats {
	return c.ask(pod, said, true)
}

func (c *Collector) ask(pod *v1.Pod, said driversSaid, onlyClaims bool) []statsapi.VolumeStats {
	var out []statsapi.VolumeStats
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		claim := claimOf(pod, vol)
		if onlyClaims && claim == "" {
			continue
		}

		fs := said[podVolume{pod.UID, vol.Name}]
		if fs == nil {
			fs = c.mounted(pod, vol, claim)
		}
		if fs == nil {
			continue
		}

		one := statsapi.VolumeStats{FsStats: *fs, Name: vol.Name}
		if claim != "" {
			one.PVCRef = &statsapi.PVCReference{Name: claim, Namespace: pod.Namespace}
		}

		out = append(out, one)
	}

	return out
}

// mounted returns the figures of what is mounted for a volume, nil if nothing is.
func (c *Collector) mounted(pod *v1.Pod, vol *v1.Volume, claim string) *statsapi.FsStats {
	for _, dir := range c.volumeDirs(pod, vol, claim) {
		if fs := c.questions.usage(dir, c.measure); fs != nil {
			return fs
		}
	}
	return nil
}

// claimOf returns the name of the claim that a volume is of, empty if it is of none.
func claimOf(pod *v1.Pod, vol *v1.Volume) string {
	switch {
	case vol.PersistentVolumeClaim != nil:
		return vol.PersistentVolumeClaim.ClaimName
	case vol.Ephemeral != nil:
		return pod.Name + "-" + vol.Name
	}
	return ""
}

// volumeDirs returns where a volume of a pod can be mounted, in kubelet's layout.
func (c *Collector) volumeDirs(pod *v1.Pod, vol *v1.Volume, claim string) []string {
	base := filepath.Join(c.cfg.Root, "pods", string(pod.UID), "volumes")
	csi := filepath.Join(base, "kubernetes.io~csi")
	switch {
	case claim != "":
		// The directory of a claim is named after its persistent volume, which the pod does not say. That
		// there is one says it for a pod with one claim.
		found, err := filepath.Glob(filepath.Join(csi, "*", "mount"))
		if err != nil || len(found) != 1 {
			return nil
		}

		return found

	case vol.CSI != nil:
		return []string{filepath.Join(csi, vol.Name, "mount")}
	}

	found, err := filepath.Glob(filepath.Join(base, "*", vol.Name))
	if err != nil {
		return nil
	}

	return found
}

// mountUsage returns the figures of what is mounted on a directory, nil if nothing is.
func mountUsage(dir string) *statsapi.FsStats {
	if mounted, err := mount.Mounted(dir); err != nil || !mounted {
		return nil
	}
	return diskUsage(dir)
}

// diskUsage returns the figures of the file system that a directory is on, nil if it cannot be asked.
func diskUsage(dir string) *statsapi.FsStats {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return nil
	}

	size := uint64(st.Bsize)
	return &statsapi.FsStats{
		Time:           metav1.Now(),
		AvailableBytes: new(st.Bavail * size),
		CapacityBytes:  new(st.Blocks * size),
		UsedBytes:      new((st.Blocks - st.Bfree) * size),
		Inodes:         new(st.Files),
		InodesFree:     new(st.Ffree),
		InodesUsed:     new(st.Files - st.Ffree),
	}
}

// answerTime is how long a file system may take to answer.
const answerTime = time.Second

// questions keeps track of file systems that have not answered: one whose server is gone never does, and
// would keep a thread for each question.
type questions struct {
	mu   sync.Mutex
	open map[string]bool // by directory
}

// usage asks for the figures of a directory. It returns nil when there is no answer in time, or none yet to
// an earlier question.
func (q *questions) usage(dir string, ask func(string) *statsapi.FsStats) *statsapi.FsStats {
	if !q.begin(dir) {
		return nil
	}

	answer := make(chan *statsapi.FsStats, 1)
	go func() {
		fs := ask(dir)
		q.end(dir)
		answer <- fs
	}()

	timer := time.NewTimer(answerTime)
	defer timer.Stop()

	select {
	case fs := <-answer:
		return fs
	case <-timer.C:
		return nil
	}
}

func (q *questions) begin(dir string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open[dir] {
		return false
	}
	if q.open == nil {
		q.open = map[string]bool{}
	}
	q.open[dir] = true
	return true
}

func (q *questions) end(dir string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.open, dir)
}
