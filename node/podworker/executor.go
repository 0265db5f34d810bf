package podworker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/slots"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/hostsfile"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/reason"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/termination"
	"github.com/trivet-node/trivet/node/userns"
)

// executor does the steps. It decides nothing: what to do after a failure is decided by the next look.
type executor struct {
	cfg  Config
	deps Deps

	hosts hostsfile.Writer

	// sandboxes bounds the sandboxes that are being made, starts the containers that are being started. They
	// are apart, so that a burst of pods finishes its first pods first.
	sandboxes *slots.Slots
	starts    *slots.Slots
}

// startLimit is how long the start of one sandbox or container may keep those of other pods waiting: it may
// hang, for its network's plugin or a dead server's volume.
const startLimit = 10 * time.Second

func newExecutor(cfg Config, d Deps) *executor {
	return &executor{
		cfg:       cfg,
		deps:      d,
		hosts:     hostsfile.Writer{NodeFile: cfg.HostsFile, ClusterDomain: cfg.Node.ClusterDomain},
		sandboxes: slots.New(cfg.Starts, startLimit),
		starts:    slots.New(cfg.Starts, startLimit),
	}
}

// do does a step. view is what the decision was made about.
func (e *executor) do(ctx context.Context, p *pod, view *plan.View, s plan.Step) error {
	switch s.Verb {
	case plan.Prepare:
		return e.prepare(ctx, p, view.Pod)
	case plan.CreateSandbox:
		return e.createSandbox(ctx, view.Pod, s.Attempt)
	case plan.Pull:
		return e.pull(ctx, p, view.Pod, s)
	case plan.Resize:
		return e.deps.Resizer.Resize(ctx, view.Pod, s)
	case plan.Start:
		err := e.start(ctx, p, view, s)
		why := reason.Of(err)
		e.deps.Meter.ContainerStarted(view.Pod, s.Name, why)
		if why != "" && s.Attempt == 0 && p.failsFirstIn(s.ID) {
			e.deps.Meter.FirstStartFailed(view.Pod)
		}

		return err

	case plan.Stop:
		return e.stop(ctx, view, s)
	case plan.StopSandbox:
		return e.deps.Runtime.StopSandbox(ctx, s.ID)
	case plan.RemoveContainer:
		return e.removeContainer(ctx, view, s)
	case plan.RemoveSandbox:
		return e.deps.Runtime.RemoveSandbox(ctx, s.ID)
	case plan.Teardown:
		return e.teardown(ctx, p, view.Pod)
	case plan.Finalize:
		return e.deps.API.Delete(ctx, view.Pod)
	case plan.Forget:
		return e.cfg.Logs.RemovePod(view.Pod.UID)
	}

	return fmt.Errorf("step %s is not known", s.Verb)
}

// prepare mounts the volumes, or brings them up to date.
func (e *executor) prepare(ctx context.Context, p *pod, pod *v1.Pod) error {
	volumes, err := e.deps.Volumes.Setup(ctx, pod)
	if err != nil {
		return err
	}

	// The pod can use these as they are, in their old size.
	for _, grow := range volumes.Ungrown {
		e.deps.Events.Pod(pod, "", v1.EventTypeWarning, grow.Reason, grow.Error())
	}

	p.mounted(volumes, volumes.SetUpAgain)
	return nil
}

// createSandbox makes the pod's control group and log directory, and has the runtime create and start the
// sandbox.
func (e *executor) createSandbox(ctx context.Context, pod *v1.Pod, attempt uint32) error {
	handler, err := e.handler(ctx, pod)
	if err != nil {
		return err
	}

	// Not before the API server was asked: pods without a class need not wait for it.
	release, err := e.sandboxes.Take(ctx)
	if err != nil {
		return err
	}
	defer release()

	if err := e.deps.Cgroups.Ensure(ctx, pod); err != nil {
		return err
	}

	began := time.Now()
	config, err := e.sandboxConfig(ctx, pod, attempt)
	if err != nil {
		e.deps.Meter.SandboxStarted(pod, handler, time.Since(began), err)
		return err
	}
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		return err
	}

	began = time.Now()
	_, err = e.deps.Runtime.RunSandbox(ctx, config, handler)
	e.deps.Meter.SandboxStarted(pod, handler, time.Since(began), err)
	return err
}

// sandboxConfig is the configuration of a sandbox, with the node's resolver configuration as it is now.
func (e *executor) sandboxConfig(
	ctx context.Context, pod *v1.Pod, attempt uint32,
) (*runtime.SandboxConfig, error) {
	users, err := e.users(ctx, pod)
	if err != nil {
		return nil, err
	}

	node := e.cfg.Node
	if e.cfg.HostDNS != nil {
		if node.HostDNS, err = e.cfg.HostDNS(); err != nil {
			return nil, err
		}
	}

	config, err := criconfig.Sandbox(node, pod, attempt, e.deps.Cgroups.Parent(pod))
	if err != nil {
		return nil, err
	}

	users.GiveSandbox(config)
	return config, nil
}

// users are those of the pod's user namespace. A pod without one needs no RuntimeClass for that.
func (e *executor) users(ctx context.Context, pod *v1.Pod) (criconfig.Users, error) {
	if !userns.Wants(pod) {
		return criconfig.Users{}, nil
	}
	handler, err := e.handler(ctx, pod)
	if err != nil {
		return criconfig.Users{}, err
	}
	return e.deps.Users.Of(pod, handler)
}

// handler is the runtime handler of the pod's RuntimeClass, empty if it has none.
func (e *executor) handler(ctx context.Context, pod *v1.Pod) (string, error) {
	class := pod.Spec.RuntimeClassName
	if class == nil || *class == "" {
		return "", nil
	}
	return e.deps.API.Handler(ctx, *class)
}

// pull makes sure of the image of a container, for its next start.
func (e *executor) pull(ctx context.Context, p *pod, pod *v1.Pod, s plan.Step) error {
	c := podspec.Find(pod, s.Name)
	if c == nil {
		return fmt.Errorf("container %s is not in the spec", s.Name)
	}

	began := time.Now()
	have, err := e.deps.Images.Ensure(ctx, pod, c)
	p.start.Pulled(began, time.Now())
	if err != nil {
		return err
	}

	p.keepImage(s.Name, c.Image, have)
	return nil
}

// removeContainer removes an instance with its termination message and its log, or, if that is to be kept,
// the logs of all instances before it.
func (e *executor) removeContainer(ctx context.Context, view *plan.View, s plan.Step) error {
	if err := e.deps.Runtime.RemoveContainer(ctx, s.ID); err != nil {
		return err
	}

	at := slices.IndexFunc(view.Observed.Containers, func(c plan.Container) bool { return c.ID == s.ID })
	if at < 0 {
		return nil
	}

	c := &view.Observed.Containers[at]
	instance := podlog.Instance{
		Pod:       view.Pod,
		Container: c.Name,
		Attempt:   c.Attempt,
		ID:        c.ID,
	}

	remove := e.cfg.Logs.Remove
	if s.KeepLog {
		remove = e.cfg.Logs.RemoveBefore
	}
	if err := remove(instance); err != nil {
		return err
	}

	return termination.Remove(e.podDir(view.Pod), c.Name, c.Attempt)
}

// teardown removes the pod's control group and directory, and unmounts the volumes. The record of its users
// is in the directory: before that goes, nobody may run as one of them.
func (e *executor) teardown(ctx context.Context, p *pod, pod *v1.Pod) error {
	if err := e.deps.Cgroups.Remove(ctx, pod.UID); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	if err := e.deps.Volumes.Teardown(ctx, pod.UID); err != nil {
		return fmt.Errorf("volumes: %w", err)
	}
	if err := e.deps.Users.Release(pod.UID); err != nil {
		return fmt.Errorf("user namespace: %w", err)
	}

	p.unmounted()
	return nil
}

// podDir is kubelet's directory for the pod.
func (e *executor) podDir(pod *v1.Pod) string {
	return filepath.Join(e.cfg.RootDir, "pods", string(pod.UID))
}
