// Package containergc removes containers that have ended, with their logs, and sandboxes that hold none any
// more: what pods that were evicted leave, what is more than kubelet's flags allow, and, when disk space is
// needed, all of pods that have ended
// (https://kubernetes.io/docs/concepts/architecture/garbage-collection/#containers-images).
//
// The pod worker removes what a pod that runs does not need any more, and all of one that is deleted. What is
// removed here is decided in decide.go, which is pure.
package containergc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/runtime"
)

// Runtime is what a Collector needs of the container runtime (runtime.Client).
type Runtime interface {
	Containers(ctx context.Context, which runtime.Selection) ([]runtime.Container, error)
	Sandboxes(ctx context.Context, which runtime.Selection) ([]runtime.Sandbox, error)
	RemoveContainer(ctx context.Context, id string) error
	StopSandbox(ctx context.Context, id string) error
	RemoveSandbox(ctx context.Context, id string) error
}

// Pods are those that the API has on this node (podsource.Source).
type Pods interface {
	Get(uid types.UID) *v1.Pod
	List() []*v1.Pod
}

// Events records events about the node (event.Recorder).
type Events interface {
	Record(about v1.ObjectReference, kind, reason, message string)
}

// Config is what a Collector works with.
type Config struct {
	Policy  Policy
	Node    string // name of the Node, which the events are about
	Runtime Runtime
	Pods    Pods
	Logs    podlog.Logs
	Events  Events
	Log     *slog.Logger
}

// Collector removes the containers of one node. All methods may be called at the same time.
type Collector struct {
	cfg Config

	// turn holds one of those who remove containers.
	turn chan struct{}
}

// New returns a collector. It removes nothing.
func New(cfg Config) *Collector { return &Collector{cfg: cfg, turn: make(chan struct{}, 1)} }

// Collect applies the policy once. Call it periodically, when the pods of all sources are known.
func (c *Collector) Collect(ctx context.Context) error {
	err := c.collect(ctx, false)
	if err != nil && ctx.Err() == nil {
		c.cfg.Events.Record(event.Node(c.cfg.Node), v1.EventTypeWarning, "ContainerGCFailed", err.Error())
	}
	return err
}

// ReclaimContainers removes all containers of pods that have ended, deleted or not, with their logs.
func (c *Collector) ReclaimContainers(ctx context.Context) error { return c.collect(ctx, true) }

func (c *Collector) collect(ctx context.Context, reclaim bool) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}

	links, err := c.cfg.Logs.DeadLinks()
	if err != nil {
		return fmt.Errorf("links to logs: %w", err)
	}

	// The links come before the containers: one that comes meanwhile is of a container that is in the list.
	containers, err := c.cfg.Runtime.Containers(ctx, runtime.Selection{})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}

	sandboxes, err := c.cfg.Runtime.Sandboxes(ctx, runtime.Selection{})
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}

	d := c.cfg.Policy.decide(state{
		containers: containers,
		sandboxes:  sandboxes,
		fate:       func(uid types.UID) fate { return fateOf(c.cfg.Pods.Get(uid)) },
		reclaim:    reclaim,
		now:        time.Now(),
	})

	return errors.Join(c.remove(ctx, d), c.removeLogs(), removeLinks(links, containers))
}

// remove carries a decision out. What cannot be removed does not keep the rest.
func (c *Collector) remove(ctx context.Context, d decision) error {
	var errs []error
	for _, one := range d.containers {
		if err := c.removeContainer(ctx, one); err != nil {
			errs = append(errs, fmt.Errorf("remove container %s: %w", one.ID, err))
		}
	}

	for _, box := range d.sandboxes {
		// It was stopped when its pod ended, unless that was interrupted.
		err := c.cfg.Runtime.StopSandbox(ctx, box.ID)
		if err == nil {
			err = c.cfg.Runtime.RemoveSandbox(ctx, box.ID)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove sandbox %s: %w", box.ID, err))
		}
	}

	if len(d.containers)+len(d.sandboxes) > 0 {
		c.cfg.Log.Info("containers that have ended were removed",
			"containers", len(d.containers), "sandboxes", len(d.sandboxes), "failed", len(errs))
	}

	return errors.Join(errs...)
}

func (c *Collector) removeContainer(ctx context.Context, one runtime.Container) error {
	if err := c.cfg.Runtime.RemoveContainer(ctx, one.ID); err != nil {
		return err
	}

	pod := c.cfg.Pods.Get(types.UID(one.Pod.UID))
	if pod == nil {
		// It was deleted meanwhile: its logs go with it.
		return nil
	}

	return c.cfg.Logs.Remove(podlog.Instance{
		Pod:       pod,
		Container: one.Name,
		Attempt:   one.Attempt,
		ID:        one.ID,
	})
}

// removeLogs removes the logs of pods that were evicted.
func (c *Collector) removeLogs() error {
	var errs []error
	for _, pod := range c.cfg.Pods.List() {
		if fateOf(pod) == evicted {
			errs = append(errs, c.cfg.Logs.RemoveDir(pod))
		}
	}
	return errors.Join(errs...)
}

// removeLinks removes the links to logs that are gone with their containers. A log that is missing may be
// between two steps of its rotation.
func removeLinks(links []podlog.Link, containers []runtime.Container) error {
	known := map[string]bool{}
	for _, one := range containers {
		known[one.ID] = true
	}

	var errs []error
	for _, link := range links {
		if !known[link.Container] {
			errs = append(errs, link.Remove())
		}
	}

	return errors.Join(errs...)
}
