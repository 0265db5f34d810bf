package localstorage_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/localstorage"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/runtime"
)

// node is the machine, the runtime and the control groups of a Meter in a test.
type node struct {
	t    testing.TB
	root string
	logs podlog.Logs
	pods []*v1.Pod

	// mu guards what follows.
	mu     sync.Mutex
	layers map[string]uint64
	ended  map[string]bool
	cpu    map[types.UID]time.Duration
	asked  int
	err    error
}

func newNode(t testing.TB, pods ...*v1.Pod) *node {
	t.Helper()
	return &node{
		t:      t,
		root:   t.TempDir(),
		logs:   podlog.Logs{Root: t.TempDir(), Links: t.TempDir()},
		pods:   pods,
		layers: map[string]uint64{},
		ended:  map[string]bool{},
		cpu:    map[types.UID]time.Duration{},
	}
}

// meter returns a Meter of the node that is ended with the test.
func (n *node) meter() *localstorage.Meter {
	m := localstorage.New(localstorage.Config{
		Root:    n.root,
		Logs:    n.logs,
		Pods:    func() []*v1.Pod { return n.pods },
		Runtime: n,
		Groups:  n,
		Log:     slog.New(slog.DiscardHandler),
	})

	n.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		m.Run(ctx)
	})

	return m
}

func (n *node) Stats(context.Context) ([]runtime.PodStats, error) {
	n.mu.Lock()
	defer n.mu.Unlock()

	n.asked++
	var out []runtime.PodStats
	for _, pod := range n.pods {
		s := runtime.PodStats{Pod: runtime.Pod{UID: string(pod.UID)}}
		for _, c := range pod.Spec.Containers {
			s.Containers = append(s.Containers, runtime.ContainerStats{
				ID:   c.Name,
				Name: c.Name,
				Rootfs: &statsapi.FsStats{
					Time:       metav1.Now(),
					UsedBytes:  new(n.layers[c.Name]),
					InodesUsed: new(uint64(3)),
				},
			})
		}

		out = append(out, s)
	}

	return out, n.err
}

func (n *node) Containers(context.Context, runtime.Selection) ([]runtime.Container, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []runtime.Container
	for _, pod := range n.pods {
		for _, c := range pod.Spec.Containers {
			if !n.ended[c.Name] {
				out = append(out, runtime.Container{ID: c.Name, State: plan.Running})
			}
		}
	}
	return out, n.err
}

func (n *node) CPUTime(pod *v1.Pod) (time.Duration, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	used, found := n.cpu[pod.UID]
	if !found {
		return 0, errors.New("there is no such group")
	}
	return used, nil
}

// volume is the directory of a volume, made.
func (n *node) volume(pod *v1.Pod, plugin, name string) string {
	n.t.Helper()
	dir := filepath.Join(n.root, "pods", string(pod.UID), "volumes", plugin, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		n.t.Fatal(err)
	}
	return dir
}

// write makes a file of so many bytes, and the directory that it is in.
func (n *node) write(path string, bytes int) {
	n.t.Helper()
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, make([]byte, bytes), 0o600))
	if err != nil {
		n.t.Fatal(err)
	}
}

func TestUsageIsThatOfLayersLogsAndVolumes(t *testing.T) {
	pod := withEmptyDir(newPod("1Gi", ""), "cache", "", "")
	pod.Spec.Volumes = append(pod.Spec.Volumes,
		v1.Volume{Name: "settings", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{}}},
		v1.Volume{Name: "keys", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{}}})
	n := newNode(t, pod)
	n.layers["a"], n.layers["b"] = 10*mib, 20*mib
	n.ended["b"] = true
	n.write(n.volume(pod, "kubernetes.io~empty-dir", "cache")+"/file", 1<<16)
	n.write(n.volume(pod, "kubernetes.io~configmap", "settings")+"/file", 1<<12)
	n.write(n.volume(pod, "kubernetes.io~secret", "keys")+"/file", 1<<20)

	dir := podlog.Dir(n.logs.Root, pod)
	for _, name := range []string{"a/0.log", "a/1.log", "a/1.log.20260102-030405.gz", "b/0.log", "x/0.log"} {
		n.write(filepath.Join(dir, name), 1<<13)
	}

	n.write(filepath.Join(n.root, "pods", "u1", "etc-hosts"), 100)

	all, err := n.meter().Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	got := all["u1"]
	if a := got.Containers["a"]; a.Layer.Bytes != 10*mib || a.Layer.Inodes != 3 ||
		a.Logs.Bytes != 3<<13 || a.Logs.Inodes != 3 {
		t.Errorf("container a: %+v", a)
	}

	if _, found := got.Containers["b"]; found {
		t.Error("a container that has ended takes something")
	}
	if v := got.Volumes["cache"]; v.Bytes < 1<<16 || v.Bytes > 1<<17 || v.Inodes != 2 || v.Memory {
		t.Errorf("emptyDir: %+v", v)
	}
	if v := got.Volumes["settings"]; v.Bytes < 1<<12 || v.Inodes != 2 {
		t.Errorf("configMap: %+v", v)
	}
	if got.Rest.Inodes != 1 {
		t.Errorf("rest: %+v", got.Rest)
	}

	if total := got.Total(); total.Bytes < 10*mib+3<<13+1<<16+1<<12 || total.Bytes > 11*mib ||
		total.Inodes != 3+3+2+2+1 || len(got.Volumes) != 2 {
		t.Errorf("total: %+v", total)
	}
}

func TestRuntimeIsNotAskedAboutPodsThatHaveNotRun(t *testing.T) {
	pod := newPod("1Gi")
	n := newNode(t, pod)
	n.cpu["u1"] = time.Second
	m := n.meter()
	look := func(asked int) {
		t.Helper()
		if _, err := m.Usage(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n.asked != asked {
			t.Errorf("asked %d times, want %d", n.asked, asked)
		}
	}

	look(1)
	look(1)
	n.cpu["u1"]++
	n.layers["a"] = mib
	look(2)
	look(2)

	// What is not known may have changed.
	delete(n.cpu, "u1")
	look(3)
	look(4)
}

func TestLogsAreNotLookedAtWhileThePodDoesNotRun(t *testing.T) {
	pod := newPod("1Gi")
	n := newNode(t, pod)
	n.cpu["u1"] = time.Second
	m := n.meter()
	log := filepath.Join(podlog.Dir(n.logs.Root, pod), "a", "0.log")
	look := func(want uint64) {
		t.Helper()
		all, err := m.Usage(t.Context())
		if got := all["u1"].Containers["a"].Logs.Bytes; err != nil || got != want {
			t.Errorf("%d bytes, %v; want %d", got, err, want)
		}
	}

	// What a container has written may reach the log a little later.
	look(0)
	n.write(log, 1<<12)
	look(1 << 12)
	m.Age(time.Minute)
	look(1 << 12)

	n.write(log, 1<<13)
	look(1 << 12)
	n.cpu["u1"]++
	look(1 << 13)
}

func TestNothingIsKnownWhenTheRuntimeDoesNotAnswer(t *testing.T) {
	n := newNode(t, newPod("1Gi"))
	n.cpu["u1"] = time.Second
	n.err = errors.New("broken")
	m := n.meter()
	for range 2 {
		if _, err := m.Usage(t.Context()); !errors.Is(err, n.err) {
			t.Errorf("%v", err)
		}
	}

	n.err = nil
	n.layers["a"] = mib
	if all, err := m.Usage(t.Context()); err != nil || all["u1"].Containers["a"].Layer.Bytes != mib {
		t.Errorf("%+v, %v", all, err)
	}
}

// evictor remembers whom it was to evict.
type evictor struct {
	refuses bool
	evicted map[types.UID]localstorage.Excess
}

func (e *evictor) Evict(uid types.UID, excess localstorage.Excess) bool {
	e.evicted[uid] = excess
	return !e.refuses
}

func newEnforcer(n *node, m *localstorage.Meter, e *evictor) *localstorage.Enforcer {
	return localstorage.NewEnforcer(localstorage.EnforcerConfig{
		Meter:            m,
		Pods:             func() []*v1.Pod { return n.pods },
		DedicatedImageFS: func(context.Context) (bool, error) { return false, nil },
		Evictor:          e,
		Log:              slog.New(slog.DiscardHandler),
	})
}

func TestPodsThatExceedALimitAreEvicted(t *testing.T) {
	small, large, ended := newPod("1Mi"), newPod("1Mi"), newPod("1Mi")
	small.Spec.Containers[0].Name = "small"
	large.UID, ended.UID = "u2", "u3"
	ended.Status.Phase = v1.PodFailed
	n := newNode(t, small, large, ended)
	n.layers["small"], n.layers["a"] = mib-8192, mib+1
	e := &evictor{evicted: map[types.UID]localstorage.Excess{}}
	if err := newEnforcer(n, n.meter(), e).Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(e.evicted) != 1 || e.evicted["u2"].Signal != localstorage.SignalPod {
		t.Errorf("%+v", e.evicted)
	}
}

func TestPodsThatHaveJustStartedAreLookedAtBetweenTheOthers(t *testing.T) {
	now := time.Unix(1000, 0)
	fresh, old, waiting := newPod("1Mi"), newPod("1Mi"), newPod("1Mi")
	fresh.Status.StartTime = &metav1.Time{Time: now.Add(-5 * time.Second)}
	old.Status.StartTime = &metav1.Time{Time: now.Add(-time.Hour)}
	all := []*v1.Pod{fresh, old, waiting}
	for _, c := range []struct {
		looked time.Time
		want   []*v1.Pod
	}{
		{time.Time{}, all},
		{now.Add(-localstorage.Period), all},
		{now.Add(-time.Second), []*v1.Pod{fresh}},
	} {
		if got := localstorage.Due(all, c.looked, now); !slices.Equal(got, c.want) {
			t.Errorf("looked at all at %s: %d pods, want %d", c.looked, len(got), len(c.want))
		}
	}
}

func TestNodeWithoutLimitsAsksNobody(t *testing.T) {
	n := newNode(t, withEmptyDir(newPod(""), "cache", "", ""))
	if err := newEnforcer(n, n.meter(), &evictor{}).Look(t.Context()); err != nil || n.asked != 0 {
		t.Errorf("asked %d times, %v", n.asked, err)
	}
}

// busyNode has so many pods, each with limits, a volume, a configMap, logs and a container.
func busyNode(b *testing.B, pods int) *node {
	b.Helper()
	n := newNode(b)
	for i := range pods {
		pod := withEmptyDir(newPod("1Gi"), "cache", "1Gi", "")
		pod.UID = types.UID(strconv.Itoa(i))
		pod.Spec.Volumes = append(pod.Spec.Volumes, v1.Volume{
			Name:         "settings",
			VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{}},
		})

		n.pods = append(n.pods, pod)
		n.cpu[pod.UID] = time.Second
		n.volume(pod, "kubernetes.io~empty-dir", "cache")
		n.volume(pod, "kubernetes.io~configmap", "settings")
		n.write(filepath.Join(podlog.Dir(n.logs.Root, pod), "a", "0.log"), 100)
	}

	return n
}

// No pod has run since the look before.
func BenchmarkIdleLookAt110Pods(b *testing.B) {
	n := busyNode(b, 110)
	meter := n.meter()
	enforcer := newEnforcer(n, meter, &evictor{})
	if err := enforcer.Look(b.Context()); err != nil {
		b.Fatal(err)
	}

	meter.Age(time.Minute)
	for b.Loop() {
		if err := enforcer.Look(b.Context()); err != nil {
			b.Fatal(err)
		}
	}

	if n.asked != 1 {
		b.Errorf("the runtime was asked %d times", n.asked)
	}
}
