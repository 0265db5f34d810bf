package podworker_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/node/allocation"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/imageaccess"
	"github.com/trivet-node/trivet/node/imagepull"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/probe"
	"github.com/trivet-node/trivet/node/queue"
	"github.com/trivet-node/trivet/node/resize"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

// waitForEvent waits until an event was sent, REASON CONTAINER: "Pulled app".
func (c *cluster) waitForEvent(uid types.UID, event string) {
	c.t.Helper()
	c.waitFor(uid, event, func(*v1.Pod) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.Contains(c.events, event)
	})
}

// waitFor waits, without polling, until the pod is as wanted; a pod that is gone is nil.
func (c *cluster) waitFor(uid types.UID, what string, ok func(*v1.Pod) bool) *v1.Pod {
	c.t.Helper()
	deadline := time.After(time.Minute)
	for {
		c.mu.Lock()
		p, next := c.pods[uid], c.changed
		c.mu.Unlock()
		if ok(p) {
			return p
		}

		select {
		case <-next:
		case <-deadline:
			text, _ := json.MarshalIndent(p, "", " ")
			c.t.Fatalf("never %s: %s", what, text)
		}
	}
}

const (
	lookers      = 2
	startsAtOnce = 4
)

// start runs a worker, for one life of an agent, until the returned function is called or the test ends.
func (c *cluster) start(s *runtimetest.Server, root string) (stop func()) {
	c.t.Helper()
	conn, err := socket.Dial(s.Socket)
	if err != nil {
		c.t.Fatal(err)
	}

	log := slog.New(slog.DiscardHandler)
	rt := runtime.New(conn, conn, log)
	q := queue.New()
	probes := probe.New(rt, q, c, probe.NewResults(func() []*v1.Pod { return nil }))
	w := podworker.New(c.config(root), podworker.Deps{
		Queue:   q,
		Pods:    c,
		API:     c,
		Runtime: rt,
		Volumes: c,
		Cgroups: cgroups{c},
		Users:   c.users(root),
		Resizer: resize.New(resize.Config{Cgroups: cgroups{c}, Runtime: rt}),
		Objects: c,
		Probes:  probes,
		Events:  c,
		Images:  c.images(rt, root),
		Log:     log,

		Allocations: allocation.New(root, log),
	})

	c.mu.Lock()
	c.queue, c.worker = q, w
	c.mu.Unlock()

	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { w.Run(ctx) })
	parts.Go(func() { _ = rt.Watch(ctx, w) })
	for _, p := range c.List() {
		q.Look(p.UID, queue.PodChanged)
	}

	stop = sync.OnceFunc(func() {
		cancel()
		parts.Wait()
		probes.Close()
		conn.Close()
	})

	c.t.Cleanup(stop)
	return stop
}

// config is that of a worker whose files are below root.
func (c *cluster) config(root string) podworker.Config {
	return podworker.Config{
		Node:        criconfig.Node{LogRoot: root + "/logs"},
		RootDir:     root,
		Logs:        podlog.Logs{Root: root + "/logs", Links: root},
		RuntimeName: "fake",
		Handlers:    c.runtimeHandlers,
		HostIPs:     []string{"192.0.2.1"},
		HostDNS:     c.host.HostDNS,
		Workers:     lookers,
		Starts:      startsAtOnce,
		Admit:       c.admit,
		Refresh:     c.refresh,
	}
}

// images pulls by the cluster's secrets and keeps its records below root.
func (c *cluster) images(rt *runtime.Client, root string) *imagepull.Puller {
	c.t.Helper()
	log := slog.New(slog.DiscardHandler)
	access, err := imageaccess.Open(imageaccess.Config{RootDir: root, Log: log})
	if err != nil {
		c.t.Fatal(err)
	}

	return imagepull.New(imagepull.Config{
		Runtime:     rt,
		Secrets:     c,
		Access:      access,
		Events:      c,
		Log:         log,
		NodeSecrets: c.secretsOf,
		Sandbox: func(pod *v1.Pod) (*runtime.SandboxConfig, error) {
			return criconfig.Sandbox(criconfig.Node{}, pod, 0, "/kubepods")
		},
	})
}

func newPod(policy v1.RestartPolicy, containers ...v1.Container) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{
		UID:        "uid-1",
		Name:       "web",
		Namespace:  "shop",
		Generation: 1,
	},
		Spec: v1.PodSpec{
			RestartPolicy:                 policy,
			Containers:                    containers,
			TerminationGracePeriodSeconds: new(int64(30)),
		}}

	p.Status.Phase = v1.PodPending
	return p
}

func ready(p *v1.Pod) bool {
	return p != nil &&
		slices.ContainsFunc(
			p.Status.Conditions,
			func(c v1.PodCondition) bool { return c.Type == v1.PodReady && c.Status == v1.ConditionTrue },
		)
}

func (c *cluster) remove(uid types.UID, grace int64) {
	c.mu.Lock()
	p := c.pods[uid].DeepCopy()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{
		Time: time.Now().Add(time.Duration(grace) * time.Second),
	}, &grace
	c.mu.Unlock()
	c.put(p)
}

func gone(p *v1.Pod) bool { return p == nil }

// waitUntilForgotten waits until the worker has nothing to do with a pod any more.
func (c *cluster) waitUntilForgotten(uid types.UID) {
	c.t.Helper()
	c.waitFor(uid, "forgotten", func(*v1.Pod) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.Contains(c.forgotten, uid)
	})
}

// leavesNothing waits until a pod is forgotten and checks that the runtime has nothing left then.
func (c *cluster) leavesNothing(uid types.UID, s *runtimetest.Server) {
	c.t.Helper()
	c.waitUntilForgotten(uid)
	if left := s.Left(); len(left) > 0 {
		c.t.Errorf("left in the runtime: %v", left)
	}
}
