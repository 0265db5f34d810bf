package stats

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Mounts are in kubelet's layout.
func TestDirectoriesOfVolumes(t *testing.T) {
	c := collect(t, &fake{})
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
