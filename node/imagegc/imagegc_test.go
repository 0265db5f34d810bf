package imagegc

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/runtime"
)

// node is a runtime and a disk in memory: what is on the disk beside images is other.
type node struct {
	t      *testing.T
	dir    string
	policy Policy

	images     []*runtime.Image
	containers []runtime.Container
	mounts     map[string][]string // of containers
	refused    error               // of removals
	shared     bool                // images are of one layer: a removal frees nothing but the last
	size       int64
	other      int64

	alive    map[types.UID]bool
	statuses int
	changes  int
	removed  []string // reasons
	onRemove func(id string)

	// mu guards events.
	mu     sync.Mutex
	events []string
}

// sent are the events so far.
func (n *node) sent() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.events)
}

func newNode(t *testing.T) *node {
	return &node{
		t:      t,
		dir:    t.TempDir(),
		policy: Policy{HighPercent: 85, LowPercent: 80, MinAge: 2 * time.Minute},
		size:   1000,
		alive:  map[types.UID]bool{},
		mounts: map[string][]string{},
	}
}

func (n *node) ListImages(context.Context) ([]*runtime.Image, error) {
	return slices.Clone(n.images), nil
}

func (n *node) Containers(context.Context, runtime.Selection) ([]runtime.Container, error) {
	return n.containers, nil
}

func (n *node) ContainerStatus(_ context.Context, id string) (runtime.Status, error) {
	n.statuses++
	return runtime.Status{Images: n.mounts[id]}, nil
}

func (n *node) RemoveImage(_ context.Context, id string) error {
	if n.onRemove != nil {
		n.onRemove(id)
	}
	if n.refused != nil {
		return n.refused
	}
	n.images = slices.DeleteFunc(n.images, func(i *runtime.Image) bool { return i.ID == id })
	return nil
}

func (n *node) ImageDir(context.Context) (string, error) { return "/images", nil }

func (n *node) Record(about v1.ObjectReference, kind, reason, message string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, about.Name+" "+kind+" "+reason+" "+message)
}

func (n *node) measure(string) (machine.FileSystem, error) {
	used := n.other
	for _, i := range n.images {
		used += int64(i.Size)
		if n.shared {
			break
		}
	}
	return machine.FileSystem{Size: n.size, Free: n.size - used}, nil
}

// add adds images of 100 bytes.
func (n *node) add(ids ...string) {
	for _, id := range ids {
		n.images = append(n.images, &runtime.Image{ID: id, Size: 100})
	}
}

func (n *node) runs(id, image string) {
	n.containers = append(n.containers, runtime.Container{ID: id, ImageID: image})
}

func (n *node) collector() *Collector {
	return New(Config{
		Policy:  n.policy,
		Node:    "n1",
		Dir:     n.dir,
		Runtime: n,
		Events:  n,
		Log:     slog.New(slog.DiscardHandler),
		Alive:   func(uid types.UID) bool { return n.alive[uid] },
		Changed: func() { n.changes++ },
		Removed: func(reason string) { n.removed = append(n.removed, reason) },
		Disk:    n.measure,
	})
}

func (n *node) left() string {
	var out []string
	for _, i := range n.images {
		out = append(out, i.ID)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (n *node) collect(c *Collector) {
	n.t.Helper()
	if err := c.collect(n.t.Context()); err != nil {
		n.t.Error(err)
	}
}

func (n *node) wantLeft(want string) {
	n.t.Helper()
	if got := n.left(); got != want {
		n.t.Errorf("images left: %q, want %q", got, want)
	}
}

func TestUnusedImagesGoAboveTheHighThresholdUntilTheLowOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.add("a", "b", "c", "d", "e")
		n.runs("1", "a")
		c := n.collector()
		n.collect(c)
		time.Sleep(time.Hour)
		n.other = 340
		n.collect(c)
		n.wantLeft("a b c d e")

		// 850 of 1000 bytes are in use; 800 may be.
		n.other = 350
		n.collect(c)
		n.wantLeft("a c d e")
		if !slices.Equal(n.removed, []string{"space"}) || n.changes == 0 {
			t.Errorf("removed %q, %d changes", n.removed, n.changes)
		}
	})
}

func TestRemovalGoesOnWhereImagesShareTheirLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.shared = true
		n.add("a", "b", "c")
		c := n.collector()
		n.collect(c)
		time.Sleep(time.Hour)

		n.other = 790
		n.collect(c)
		n.wantLeft("")
	})
}

func TestADiskThatImagesDoNotFillIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.add("a", "b")
		n.runs("1", "b")
		c := n.collector()
		n.collect(c)
		time.Sleep(time.Hour)

		n.other = 800
		want := "Insufficient free disk space on the node's image filesystem (100% of 1000 B used). " +
			"Failed to free sufficient space by deleting unused images (freed 100 bytes). " +
			"Investigate disk usage, as it could be used by active images, logs, volumes, or other data."
		if err := c.collect(t.Context()); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if !slices.Equal(n.sent(), []string{"n1 Warning FreeDiskSpaceFailed " + want}) {
			t.Errorf("events %q", n.sent())
		}

		n.wantLeft("b")
	})
}

func TestTheSecondFailureInARowIsAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.size = 0
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		c := n.collector()
		go func() {
			c.Run(ctx)
			close(done)
		}()

		synctest.Wait()
		capacity := "n1 Warning InvalidDiskCapacity invalid capacity 0 on image filesystem"
		if !slices.Equal(n.sent(), []string{capacity}) {
			t.Errorf("after one failure: %q", n.sent())
		}

		time.Sleep(period)
		synctest.Wait()
		failed := "n1 Warning ImageGCFailed invalid capacity 0 on image filesystem"
		if !slices.Equal(n.sent(), []string{capacity, capacity, failed}) {
			t.Errorf("after two: %q", n.sent())
		}

		cancel()
		<-done
	})
}

func TestImagesOfContainersVolumesAndPodsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.add("running", "mounted", "by-digest", "for-a-pod", "for-an-ended-pod", "pinned", "unused")
		n.images[2].RepoDigests = []string{"r/i@sha256:1"}
		n.images[5].Pinned = true
		n.runs("1", "running")
		n.runs("2", "r/i@sha256:1")
		n.mounts["1"] = []string{"mounted"}
		n.alive["new"] = true

		c := n.collector()
		n.collect(c)
		c.Hold("for-a-pod", "new")
		c.Hold("for-an-ended-pod", "old")
		time.Sleep(time.Hour)
		if err := c.ReclaimImages(t.Context()); err != nil {
			t.Error(err)
		}

		n.wantLeft("by-digest for-a-pod mounted pinned running")
		if n.statuses != 2 {
			t.Errorf("%d container statuses, want one of each container", n.statuses)
		}
	})
}

func TestAPullThatHasJustEndedIsNotUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.add("a", "b")
		n.alive["pod"] = true
		c := n.collector()
		n.collect(c)
		time.Sleep(time.Hour)

		// The pod gets its image when what goes is decided already.
		n.onRemove = func(id string) {
			if id == "a" {
				c.Hold("b", "pod")
			}
		}
		if err := c.ReclaimImages(t.Context()); err != nil {
			t.Error(err)
		}

		n.wantLeft("b")
	})
}

func TestAPodWaitsForTheEndOfARemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.add("a")
		n.alive["pod"] = true
		c := n.collector()
		n.collect(c)
		time.Sleep(time.Hour)

		var removed <-chan struct{}
		n.onRemove = func(id string) { removed = c.Hold(id, "pod") }
		if err := c.ReclaimImages(t.Context()); err != nil {
			t.Error(err)
		}
		if removed == nil {
			t.Fatal("the pod was given an image that is being removed")
		}

		<-removed
		if again := c.Hold("a", "pod"); again != nil {
			t.Error("the image cannot be held after it was pulled again")
		}
	})
}

func TestYoungImagesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.add("old")
		c := n.collector()
		n.collect(c)
		time.Sleep(time.Minute)
		if err := c.ReclaimImages(t.Context()); err != nil {
			t.Error(err)
		}

		n.wantLeft("old")

		time.Sleep(time.Minute)
		n.add("new")
		if err := c.ReclaimImages(t.Context()); err != nil {
			t.Error(err)
		}

		n.wantLeft("new")
	})
}

func TestOneImageThatCannotBeRemovedDoesNotKeepTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.policy.MaxAge = time.Hour
		n.add("a", "b")
		c := n.collector()
		n.collect(c)
		time.Sleep(2 * time.Hour)

		n.onRemove = func(id string) {
			n.refused = nil
			if id == "a" {
				n.refused = errors.New("busy")
			}
		}
		if err := c.collect(t.Context()); err == nil || !strings.Contains(err.Error(), "busy") {
			t.Errorf("error %v", err)
		}

		n.wantLeft("a")
		if !slices.Equal(n.removed, []string{"age"}) {
			t.Errorf("removed %q", n.removed)
		}
	})
}
