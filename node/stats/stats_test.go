package stats

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

func TestSummaryOfTheNode(t *testing.T) {
	rt := newFake()
	rt.images = t.TempDir()
	s, err := collect(t, rt).Summary(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}

	n := s.Node
	if n.NodeName != "n" || n.StartTime.Unix() != 1795882087 {
		t.Errorf("node %s, started %v", n.NodeName, n.StartTime)
	}

	want := &statsapi.MemoryStats{
		Time:            n.Memory.Time,
		AvailableBytes:  new(uint64(22748500 << 10)),
		UsageBytes:      new(uint64((24684084 - 13567148) << 10)),
		WorkingSetBytes: new(uint64((24684084 - 22748500) << 10)),
		RSSBytes:        new(uint64(815756 << 10)),
	}
	if diff := cmp.Diff(want, n.Memory); diff != "" {
		t.Error(diff)
	}
	if n.CPU.UsageNanoCores != nil || *n.CPU.UsageCoreNanoSeconds != 15_077_300_000_000 {
		t.Errorf("CPU %+v", n.CPU)
	}

	// The capacity is the file system's, what is used of it the images'.
	fs := n.Runtime.ImageFs
	if *fs.UsedBytes != 99 || *fs.InodesUsed != 9 || *fs.CapacityBytes == 0 || *n.Fs.CapacityBytes == 0 {
		t.Errorf("images %+v, root %+v", fs, n.Fs)
	}
}

func TestImagesOnAFileSystemThatCannotBeAsked(t *testing.T) {
	rt := newFake()
	rt.images = filepath.Join(t.TempDir(), "none")
	c := collect(t, rt)
	if fs := c.imageFS(t.Context()); *fs.UsedBytes != 99 || fs.CapacityBytes != nil {
		t.Errorf("%+v", fs)
	}
	rt.failed = true
	if fs := c.imageFS(t.Context()); fs != nil {
		t.Errorf("without an answer: %+v", fs)
	}
}

func TestSummaryOfPods(t *testing.T) {
	s, err := collect(t, newFake()).Summary(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Pods) != 2 || s.Pods[0].PodRef.Name != "quiet" || len(s.Pods[0].Containers) != 0 {
		t.Fatalf("%+v", s.Pods)
	}

	web := s.Pods[1]
	if !web.StartTime.Time.Equal(made) || *web.ProcessStats.ProcessCount != 3 || web.Network.Name != "eth0" {
		t.Errorf("%+v", web)
	}
	if len(web.Containers) != 2 || web.Containers[0].Name != "app" || web.Containers[1].Name != "young" {
		t.Fatalf("containers %+v: one that has ended, or none", web.Containers)
	}
	if app := web.Containers[0]; !app.StartTime.Time.Equal(made) || *app.Rootfs.UsedBytes != 7 {
		t.Errorf("%+v", app)
	}
}

func TestSummaryOfCPUAndMemoryHasNothingElse(t *testing.T) {
	s, err := collect(t, newFake()).Summary(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}

	web := s.Pods[1]
	if s.Node.Fs != nil || s.Node.Runtime != nil || web.Network != nil || web.ProcessStats != nil ||
		web.VolumeStats != nil || web.Containers[0].Rootfs != nil {
		t.Errorf("%+v", s)
	}

	if web.CPU == nil || web.Memory == nil || web.Containers[0].CPU == nil {
		t.Errorf("%+v", web)
	}
}

func TestRateIsTheMeanSinceTheLastQuestion(t *testing.T) {
	rt := newFake()
	c := collect(t, rt)
	ask := func() *uint64 {
		t.Helper()
		pods, err := c.pods(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}

		return pods[1].Containers[0].CPU.UsageNanoCores
	}
	if got := ask(); got != nil {
		t.Errorf("the first question: %d", *got)
	}

	rt.at, rt.cpu = rt.at.Add(4*time.Second), rt.cpu+2e9
	if got := ask(); got == nil || *got != 5e8 {
		t.Errorf("half a CPU: %v", got)
	}
	if got := ask(); got != nil {
		t.Errorf("no time has passed: %d", *got)
	}

	rt.at, rt.cpu = rt.at.Add(time.Second), 0
	if got := ask(); got != nil {
		t.Errorf("the counter was reset: %d", *got)
	}
}

func TestRatesOfManyThatAreGoneAreForgotten(t *testing.T) {
	var r rates
	for i := range 2 * maxReadings {
		r.since(time.Unix(int64(i), 0).String(), reading{})
	}
	if n := len(r.last); n > maxReadings+1 {
		t.Errorf("%d readings are kept", n)
	}
}

// Mounts are in kubelet's layout.
func TestDirectoriesOfVolumes(t *testing.T) {
	c := collect(t, newFake())
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Name: "web"}}
	base := filepath.Join(c.cfg.Root, "pods/u/volumes")
	for _, dir := range []string{"kubernetes.io~empty-dir/cache", "kubernetes.io~csi/pv-1/mount"} {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}

	claim := &v1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}
	for name, x := range map[string]struct {
		volume v1.Volume
		claim  string
		dir    string
	}{
		"plain": {
			volume: v1.Volume{Name: "cache"},
			dir:    "kubernetes.io~empty-dir/cache",
		},
		"claim": {
			volume: v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: claim}},
			claim:  "data",
			dir:    "kubernetes.io~csi/pv-1/mount",
		},
		"ephemeral claim": {
			volume: v1.Volume{
				Name:         "v",
				VolumeSource: v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{}},
			},
			claim: "web-v",
			dir:   "kubernetes.io~csi/pv-1/mount",
		},
		"inline": {
			volume: v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{CSI: &v1.CSIVolumeSource{}}},
			dir:    "kubernetes.io~csi/v/mount",
		},
	} {
		of := claimOf(pod, &x.volume)
		dirs := c.volumeDirs(pod, &x.volume, of)
		if of != x.claim || len(dirs) != 1 || dirs[0] != filepath.Join(base, x.dir) {
			t.Errorf("%s: claim %q, directories %v", name, of, dirs)
		}
	}

	// With a second claim it is not known which directory is whose.
	if err := os.MkdirAll(filepath.Join(base, "kubernetes.io~csi/pv-2/mount"), 0o700); err != nil {
		t.Fatal(err)
	}
	if dirs := c.volumeDirs(pod, &v1.Volume{Name: "v"}, "data"); len(dirs) != 0 {
		t.Errorf("two claims: %v", dirs)
	}
}

func TestDirectoryThatIsNoMountHasNoFigures(t *testing.T) {
	if fs := mountUsage(t.TempDir()); fs != nil {
		t.Errorf("%+v", fs)
	}
	if fs := mountUsage("/proc"); fs == nil {
		t.Error("/proc is a mount")
	}
}

// A server that is gone must cost neither the answer about all other volumes nor a thread for each question.
func TestVolumeThatDoesNotAnswerIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q questions
		var asked atomic.Int32
		gone := make(chan struct{})
		defer close(gone)

		for range 3 {
			got := q.usage("/dead", func(string) *statsapi.FsStats {
				asked.Add(1)
				<-gone
				return nil
			})
			if got != nil {
				t.Errorf("%+v", got)
			}
		}

		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}

		want := &statsapi.FsStats{}
		if got := q.usage("/alive", func(string) *statsapi.FsStats { return want }); got != want {
			t.Errorf("%+v", got)
		}
	})
}
