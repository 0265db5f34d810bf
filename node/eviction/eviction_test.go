package eviction

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/memoryalarm"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/threshold"
)

// cluster is a node whose pods use memory, in the bubble of a test. All that an evictor needs is in it.
type cluster struct {
	begun time.Time

	// mu guards what follows.
	mu   sync.Mutex
	seen map[string]int64 // what is left, without pods
	pods map[types.UID]*running

	// unmeasured means that pods cannot be measured.
	unmeasured bool

	// log is what happened, as "SECONDS WHAT".
	log   []string
	aimed []memoryalarm.Aim
	signs chan struct{}

	// reclaimable is how much the removal of images gives back, of disk space.
	reclaimable int64
}

// running is a pod that runs, and how long it takes to end.
type running struct {
	*v1.Pod
	uses   int64
	takes  time.Duration
	ending bool
}

func newCluster(memory int64) *cluster {
	return &cluster{
		begun: time.Now(),
		seen:  map[string]int64{threshold.Memory: memory},
		pods:  map[types.UID]*running{},
		signs: make(chan struct{}, 1),
	}
}

func (c *cluster) happens(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf("%v ", time.Since(c.begun))+fmt.Sprintf(format, args...))
}

// run adds a pod.
func (c *cluster) run(s spec, uses int64, takes time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods[types.UID(s.name)] = &running{Pod: s.pod(), uses: uses, takes: takes}
}

// Observe is of 1000 of everything.
func (c *cluster) Observe(context.Context) (Observation, Layout) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Observation{}
	for signal, left := range c.seen {
		for _, p := range c.pods {
			left -= p.uses
		}

		out[signal] = Observed{
			Left:     left,
			Capacity: 1000,
			Time:     time.Now(),
			Group:    "/",
		}
	}
	return out, Layout{}
}

func (c *cluster) Usage(context.Context, bool) (map[types.UID]Usage, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unmeasured {
		return nil, errors.New("no answer")
	}

	out := map[types.UID]Usage{}
	for uid, p := range c.pods {
		out[uid] = Usage{Memory: p.uses}
	}

	return out, nil
}

func (c *cluster) Active() (out []*v1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pods {
		out = append(out, p.Pod)
	}
	return out
}

func (c *cluster) Evict(uid types.UID, e podworker.Eviction) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pods[uid]
	if p == nil || p.ending || *p.Spec.Priority >= 2_000_000_000 {
		return false
	}

	p.ending = true
	c.happens("%s is evicted with %v", uid, e.Grace)
	time.AfterFunc(p.takes, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.pods, uid)
	})
	return true
}

func (c *cluster) Evicting() (out []types.UID, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid, p := range c.pods {
		if p.ending {
			out = append(out, uid)
		}
	}
	return out, nil
}

func (c *cluster) Record(_ v1.ObjectReference, _, reason, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happens("%s: %s", reason, message)
}

func (c *cluster) Aim(aims []memoryalarm.Aim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aimed = aims
}

func (c *cluster) Signs() <-chan struct{} { return c.signs }

func (c *cluster) Evicted(signal string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happens("counted for %s", signal)
}

func (c *cluster) Chosen(string, time.Duration) {}

func (c *cluster) reclaimImages(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.happens("images are removed")
	c.seen[threshold.NodeFS] += c.reclaimable
	c.reclaimable = 0
	return nil
}

// keep runs an evictor for so long and returns what happened.
func (c *cluster) keep(t *testing.T, d time.Duration, texts ...string) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	e := New(Config{
		Thresholds:  thresholds(t, texts...),
		Hold:        5 * time.Minute,
		MaxPodGrace: 60,
		Pressures:   &Pressures{},
		Observer:    c,
		Meter:       c,
		Pods:        c,
		Events:      c,
		Log:         slog.New(slog.DiscardHandler),
		Images:      c.reclaimImages,
		Alarm:       c,
		Metrics:     c,
	})

	var parts sync.WaitGroup
	parts.Go(func() { e.Run(ctx) })
	time.Sleep(d)
	cancel()
	parts.Wait()

	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.log)
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("happened:\n%q, want\n%q", got, want)
	}
}

func TestOnePodAfterTheOtherIsEvictedUntilThereIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(1000)
		c.run(spec{name: "small"}, 300, 2100*time.Millisecond)
		c.run(spec{name: "large"}, 400, 2100*time.Millisecond)
		c.run(spec{name: "rest"}, 280, 2100*time.Millisecond)
		expect(t, c.keep(t, time.Minute, "memory.available<500"),
			"0s EvictionThresholdMet: Attempting to reclaim memory",
			"0s large is evicted with 1s",
			"0s counted for memory.available",
			"2.25s EvictionThresholdMet: Attempting to reclaim memory",
			"2.25s small is evicted with 1s",
			"2.25s counted for memory.available",
		)
	})
}

func TestAPodThatDoesNotEndIsWaitedForAsLongAsKubeletDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(1000)
		c.run(spec{name: "stuck"}, 600, time.Hour)
		c.run(spec{name: "next"}, 350, time.Hour)
		expect(t, c.keep(t, 50*time.Second, "memory.available<100"),
			"0s EvictionThresholdMet: Attempting to reclaim memory",
			"0s stuck is evicted with 1s",
			"0s counted for memory.available",
			"30s EvictionThresholdMet: Attempting to reclaim memory",
			"30s next is evicted with 1s",
			"30s counted for memory.available",
		)
	})
}

func TestACriticalPodIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(1000)
		c.run(spec{name: "critical", priority: 2_000_000_000}, 600, time.Second)
		c.run(spec{name: "other", priority: 2_000_000_001, memory: "1Ki"}, 350, time.Second)
		got := c.keep(t, 25*time.Second, "memory.available<100")
		expect(t, got,
			"0s EvictionThresholdMet: Attempting to reclaim memory",
			"10s EvictionThresholdMet: Attempting to reclaim memory",
			"20s EvictionThresholdMet: Attempting to reclaim memory",
		)
	})
}

func TestASoftThresholdHasItsGraceToTheMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(1000)
		patient := spec{name: "patient"}
		c.run(patient, 600, time.Second)
		c.pods["patient"].Spec.TerminationGracePeriodSeconds = new(int64(45))
		expect(t, c.keep(t, time.Minute, "memory.available<500 soft 25500ms"),
			"25.5s EvictionThresholdMet: Attempting to reclaim memory",
			"25.5s patient is evicted with 45s",
			"25.5s counted for memory.available",
		)
	})
}

func TestWhatNobodyNeedsIsRemovedBeforeAPodIsEvicted(t *testing.T) {
	for reclaimable, want := range map[int64][]string{
		500: {
			"0s EvictionThresholdMet: Attempting to reclaim ephemeral-storage",
			"0s images are removed",
		},
		10: {
			"0s EvictionThresholdMet: Attempting to reclaim ephemeral-storage",
			"0s images are removed",
			"0s app is evicted with 1s",
			"0s counted for nodefs.available",
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(1000)
			c.seen = map[string]int64{threshold.NodeFS: 350}
			c.reclaimable = reclaimable
			c.run(spec{name: "app"}, 300, 2*time.Second)
			expect(t, c.keep(t, 25*time.Second, "nodefs.available<100"), want...)
		})
	}
}

func TestASignOfTheKernelIsALookAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(1000)
		time.AfterFunc(3*time.Second, func() {
			c.run(spec{name: "app"}, 950, time.Second)
			c.signs <- struct{}{}
		})
		got := c.keep(t, 9*time.Second, "memory.available<100")
		expect(t, got,
			"3s EvictionThresholdMet: Attempting to reclaim memory",
			"3s app is evicted with 1s",
			"3s counted for memory.available",
		)

		if want := []memoryalarm.Aim{{Group: "/", Now: 0, Limit: 900}}; !slices.Equal(c.aimed, want) {
			t.Errorf("aims %+v, want %+v", c.aimed, want)
		}
	})
}

func TestSignsThatComeOftenDoNotMakeTheNodeBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(1000)
		c.run(spec{name: "critical", priority: 2_000_000_000}, 950, time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for range retry.Every(ctx, 50*time.Millisecond) {
				select {
				case c.signs <- struct{}{}:
				default:
				}
			}
		}()

		if got := c.keep(t, 9500*time.Millisecond, "memory.available<100"); len(got) > 10 {
			t.Errorf("%d tries in 10 s: %q", len(got), got)
		}
	})
}

func TestNobodyIsEvictedWhilePodsAreNotMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(1000)
		c.run(spec{name: "app"}, 950, time.Second)
		c.unmeasured = true
		time.AfterFunc(2500*time.Millisecond, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.unmeasured = false
		})
		got := c.keep(t, 9*time.Second, "memory.available<100")
		if len(got) < 2 || got[len(got)-2] != "3s app is evicted with 1s" {
			t.Errorf("%q", got)
		}
	})
}

// An agent that was killed while a pod was being evicted must not evict another one for it.
func TestAPodThatAnEarlierAgentEvictedIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(1000)
		c.run(spec{name: "before"}, 600, time.Second)
		c.run(spec{name: "innocent"}, 350, time.Second)
		c.Evict("before", podworker.Eviction{})
		got := c.keep(t, time.Minute, "memory.available<100")
		expect(t, got, "0s before is evicted with 0s")
	})
}

func TestPressuresAreToldWhenTheyChange(t *testing.T) {
	changes := 0
	var p Pressures
	p.Follow(func() { changes++ })
	p.set(nil)
	p.set([]v1.NodeConditionType{v1.NodeDiskPressure})
	p.set([]v1.NodeConditionType{v1.NodeDiskPressure})
	if got := p.Now(); changes != 1 || !slices.Equal(got, []v1.NodeConditionType{v1.NodeDiskPressure}) {
		t.Errorf("%d changes, %q", changes, got)
	}
}
