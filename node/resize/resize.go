// Package resize changes the resources of a pod while it runs: those of its control group, of its containers
// and of its sandbox. It decides nothing, and may be called again wherever it was interrupted.
package resize

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podcgroup"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/runtime"
)

// Cgroups are the pods' control groups (podcgroup.Tree).
type Cgroups interface {
	// Widen raises the limits of the pod's group to those that the pod has, and lowers none.
	Widen(ctx context.Context, pod *v1.Pod) error
	// Narrow gives the pod's group, which is there, the limits that the pod has.
	Narrow(ctx context.Context, pod *v1.Pod) error
	// Memory returns what the pod's group uses and may use.
	Memory(pod *v1.Pod) (podcgroup.Memory, error)
}

// Runtime is the container runtime (runtime.Client).
type Runtime interface {
	UpdateContainer(ctx context.Context, id string, r *runtime.Resources) error
	UpdateSandbox(ctx context.Context, id string, overhead, resources *runtime.Resources) error
	// ContainerMemory returns how many bytes of memory a container uses.
	ContainerMemory(ctx context.Context, id string) (int64, error)
}

// Config is what a Resizer works with.
type Config struct {
	Node    criconfig.Node
	Cgroups Cgroups
	Runtime Runtime

	// Took is called after each resize; nil: nobody is told.
	Took func(took time.Duration, err error)
}

// Resizer resizes pods.
type Resizer struct{ cfg Config }

// New returns a Resizer.
func New(cfg Config) *Resizer { return &Resizer{cfg: cfg} }

// Resize gives the pod's group, its sandbox and the instances of a step the resources in the pod's
// specification. The group is made wider first and narrower last, as the kernel gives a container no more
// than its pod has. A limit of memory that is less than what is used is refused, with kubelet's text, before
// any container is changed: the kernel would kill processes, or refuse it half-way.
func (r *Resizer) Resize(ctx context.Context, pod *v1.Pod, s plan.Step) error {
	began := time.Now()
	err := r.resize(ctx, pod, s)
	if r.cfg.Took != nil && ctx.Err() == nil {
		r.cfg.Took(time.Since(began), err)
	}
	return err
}

func (r *Resizer) resize(ctx context.Context, pod *v1.Pod, s plan.Step) error {
	refused, err := r.check(ctx, pod, s.Sizes)
	if err != nil {
		return err
	}

	if len(refused) > 0 && s.Restart {
		// Containers that were stopped are started with what they are given all the same.
		return errors.Join(refusal(refused), r.cfg.Cgroups.Widen(ctx, pod))
	}
	if len(refused) > 0 {
		return refusal(refused)
	}

	// A runtime may refuse, so it is asked first.
	overhead, resources := criconfig.SandboxResources(r.cfg.Node, pod)
	if err := r.cfg.Runtime.UpdateSandbox(ctx, s.ID, overhead, resources); err != nil {
		return fmt.Errorf("resize sandbox: %w", err)
	}
	if err := r.cfg.Cgroups.Widen(ctx, pod); err != nil {
		return err
	}

	for _, size := range s.Sizes {
		c := podspec.Find(pod, size.Name)
		if c == nil {
			continue
		}

		resources := criconfig.Resources(r.cfg.Node, pod, c)
		if err := r.cfg.Runtime.UpdateContainer(ctx, size.ID, resources); err != nil {
			return fmt.Errorf("resize container %q: %w", size.Name, err)
		}
	}

	return r.cfg.Cgroups.Narrow(ctx, pod)
}

// check returns which limits of memory cannot be lowered.
func (r *Resizer) check(ctx context.Context, pod *v1.Pod, sizes []plan.Size) (refused []string, err error) {
	if refused, err = r.checkPod(pod); err != nil {
		return nil, err
	}
	more, err := r.checkContainers(ctx, sizes)
	return append(refused, more...), err
}

// checkPod refuses a limit of memory of the pod that is lower than the one it has now and than what it uses.
func (r *Resizer) checkPod(pod *v1.Pod) (refused []string, err error) {
	memory, err := r.cfg.Cgroups.Memory(pod)
	if err != nil {
		return nil, fmt.Errorf("unable to read memory usage for pod %q: %w", pod.Namespace+"/"+pod.Name, err)
	}

	lowered := memory.Wanted != 0 && (memory.Limit < 0 || memory.Wanted < memory.Limit)
	if !lowered || memory.Used < memory.Wanted {
		return nil, nil
	}

	return []string{fmt.Sprintf(
		"attempting to set pod memory limit (%d) below current usage (%d)", memory.Wanted, memory.Used,
	)}, nil
}

// checkContainers refuses limits of memory of containers that are lower than what they use.
func (r *Resizer) checkContainers(ctx context.Context, sizes []plan.Size) (refused []string, err error) {
	for _, size := range sizes {
		if !size.Shrinks {
			continue
		}

		used, err := r.cfg.Runtime.ContainerMemory(ctx, size.ID)
		if err != nil {
			return nil, fmt.Errorf("missing container %q memory usage: %w", size.Name, err)
		}

		if limit := size.To.MemoryLimit; used >= limit {
			text := fmt.Sprintf("attempting to set container %q memory limit (%d) below current usage (%d)",
				size.Name, limit, used)
			refused = append(refused, text)
		}
	}

	return refused, nil
}

// refusal is the error of refused limits, as kubelet writes it.
func refusal(refused []string) error {
	text := refused[0]
	if len(refused) > 1 {
		text = "[" + strings.Join(refused, ", ") + "]"
	}
	return errors.New("cannot decrease memory limits: " + text)
}
