package status

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/plan"
)

type kind int

const (
	kindMain kind = iota
	kindInit
	kindEphemeral
)

// Reasons of container states, as kubelet words them; users and controllers match on them.
const (
	ReasonCreating     = "ContainerCreating"
	ReasonInitializing = "PodInitializing"
	ReasonCrashLoop    = "CrashLoopBackOff"
	ReasonUnknown      = "ContainerStatusUnknown"
	ReasonLost         = "Unknown"
	unknownExit        = 137
)

func (c *computer) container(spec *v1.Container, old *v1.ContainerStatus, k kind) v1.ContainerStatus {
	out := v1.ContainerStatus{Name: spec.Name, Image: spec.Image, Started: new(false)}
	all := c.instances[spec.Name]
	if len(all) > 0 && all[0].State == plan.Created {
		// not there yet
		all = all[1:]
	}

	if len(all) == 0 {
		c.unseen(&out, spec, old, k)
		return out
	}

	cur := all[0]
	out.RestartCount = int32(cur.Attempt)
	out.ContainerID = c.Runtime + "://" + cur.ID
	out.ImageID = cur.ImageID
	if cur.Image != "" {
		out.Image = cur.Image
	}

	if len(all) > 1 {
		out.LastTerminationState.Terminated = c.terminated(all[1])
	} else if old != nil {
		out.LastTerminationState = c.before(old, out.RestartCount)
	}

	switch cur.State {
	case plan.Running:
		c.running(&out, spec, cur, old, k)
	default:
		c.ended(&out, spec, cur, old, k)
	}

	return out
}

// unseen is a container of which the runtime has no instance.
func (c *computer) unseen(out *v1.ContainerStatus, spec *v1.Container, old *v1.ContainerStatus, k kind) {
	lost := &v1.ContainerStateTerminated{
		Reason:   ReasonUnknown,
		ExitCode: unknownExit,
		Message:  "The container could not be located when the pod was terminated",
	}
	if old != nil {
		out.RestartCount, out.ContainerID, out.ImageID = old.RestartCount, old.ContainerID, old.ImageID
		out.LastTerminationState = *old.LastTerminationState.DeepCopy()
		if old.State.Terminated != nil {
			out.State.Terminated = old.State.Terminated.DeepCopy()
			out.Ready = old.Ready && k == kindInit
			return
		}

		if old.State.Running != nil {
			lost = c.lost(old)
			if !c.stopped {
				out.LastTerminationState.Terminated = lost
			}
		}
	}

	if c.stopped && c.hadTurn(old, k) {
		out.State.Terminated = lost
		if t := out.LastTerminationState.Terminated; t != nil && (old == nil || old.State.Running == nil) {
			out.State.Terminated = t
			out.LastTerminationState.Terminated = nil
		}

		return
	}

	out.State.Waiting = c.waiting(spec, k)
}

// before is the last state of a container of whose earlier instances the runtime knows nothing: what was
// shown of the one before this, or, if that was still shown to run, that it was lost.
func (c *computer) before(old *v1.ContainerStatus, restarts int32) v1.ContainerState {
	switch {
	case old.RestartCount < restarts && old.State.Running != nil:
		return v1.ContainerState{Terminated: c.lost(old)}
	case old.RestartCount < restarts && old.State.Terminated != nil:
		return v1.ContainerState{Terminated: old.State.Terminated.DeepCopy()}
	case old.RestartCount <= restarts:
		return *old.LastTerminationState.DeepCopy()
	}
	return v1.ContainerState{}
}

// lost is the end of a container that was shown to run and is not there. Of a pod that goes on that was a
// reboot: runtimes that keep records call such an end so.
func (c *computer) lost(old *v1.ContainerStatus) *v1.ContainerStateTerminated {
	if c.Pod.DeletionTimestamp != nil {
		return &v1.ContainerStateTerminated{
			Reason:   ReasonUnknown,
			ExitCode: unknownExit,
			Message: "The container could not be located when the pod was deleted.  " +
				"The container used to be Running",
		}
	}

	return &v1.ContainerStateTerminated{
		Reason:      ReasonLost,
		ExitCode:    plan.LostExitCode,
		StartedAt:   old.State.Running.StartedAt,
		FinishedAt:  stamp(c.Now),
		ContainerID: old.ContainerID,
	}
}

// hadTurn reports whether a container that has no instance must have had one: it was seen running, or
// initialisation was over.
func (c *computer) hadTurn(old *v1.ContainerStatus, k kind) bool {
	if old != nil && (old.State.Running != nil || old.LastTerminationState.Terminated != nil) {
		return true
	}
	initialized, _ := condition(c.Pod.Status.Conditions, v1.PodInitialized)
	return k == kindMain && (initialized.Status == v1.ConditionTrue || c.initialised())
}

// waiting is why a container that should run does not: what failed, or that its turn has not come.
func (c *computer) waiting(spec *v1.Container, k kind) *v1.ContainerStateWaiting {
	if w := c.failure(spec); w != nil {
		return w
	}
	reason := ReasonCreating
	if len(c.Pod.Spec.InitContainers) > 0 && (k == kindInit || !c.initialised()) {
		reason = ReasonInitializing
	}
	return &v1.ContainerStateWaiting{Reason: reason}
}

func (c *computer) failure(spec *v1.Container) *v1.ContainerStateWaiting {
	if f, ok := c.Memory.Failures["pull/"+spec.Name]; ok && f.Reason != "" {
		if f.Reason == "ErrImagePull" && c.Now.Sub(f.At) >= plan.PullErrorShown {
			return &v1.ContainerStateWaiting{
				Reason:  "ImagePullBackOff",
				Message: fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", spec.Image, f.Message),
			}
		}

		return &v1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
	}

	if f, ok := c.Memory.Failures["start/"+spec.Name]; ok && f.Reason != "" {
		return &v1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
	}

	return nil
}

func (c *computer) initialised() bool {
	for i := range c.Pod.Spec.InitContainers {
		spec := &c.Pod.Spec.InitContainers[i]
		all := c.instances[spec.Name]
		switch {
		case len(all) == 0:
			return false
		case plan.Sidecar(spec):
			if all[0].State == plan.Running && !c.Memory.Health[all[0].ID].Started {
				return false
			}

		case all[0].State != plan.Exited || all[0].ExitCode != 0:
			return false
		}
	}

	return true
}

func (c *computer) running(
	out *v1.ContainerStatus,
	spec *v1.Container,
	cur *plan.Container,
	old *v1.ContainerStatus,
	k kind,
) {
	out.State.Running = &v1.ContainerStateRunning{StartedAt: stamp(cur.Started)}
	h := c.Memory.Health[cur.ID]
	if k == kindMain || plan.Sidecar(spec) {
		out.Started = new(h.Started)
		out.Ready = h.Started && h.Ready
	}

	out.AllocatedResources = spec.Resources.Requests.DeepCopy()
	out.Resources = &v1.ResourceRequirements{
		Limits:   spec.Resources.Limits.DeepCopy(),
		Requests: spec.Resources.Requests.DeepCopy(),
	}

	// it keeps what it was started with
	if old != nil && old.ContainerID == out.ContainerID && old.Resources != nil {
		out.AllocatedResources, out.Resources = old.AllocatedResources.DeepCopy(), old.Resources.DeepCopy()
		c.resized = c.resized ||
			!equality.Semantic.DeepEqual(out.Resources.Requests, spec.Resources.Requests) ||
			!equality.Semantic.DeepEqual(out.Resources.Limits, spec.Resources.Limits)
	}

	if cur.HasUser {
		out.User = &v1.ContainerUser{
			Linux: &v1.LinuxContainerUser{UID: cur.UID, GID: cur.GID, SupplementalGroups: cur.Groups},
		}
	}

	for _, m := range spec.VolumeMounts {
		s := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			s.RecursiveReadOnly = new(v1.RecursiveReadOnlyDisabled)
		}
		if m.ReadOnly && slices.Contains(cur.RecursiveReadOnly, path.Join("/", m.MountPath)) {
			s.RecursiveReadOnly = new(v1.RecursiveReadOnlyEnabled)
		}

		out.VolumeMounts = append(out.VolumeMounts, s)
	}
}

// ended shows an instance that ended: as such when it was the last, as a back-off when it will be replaced
// later.
func (c *computer) ended(
	out *v1.ContainerStatus,
	spec *v1.Container,
	cur *plan.Container,
	old *v1.ContainerStatus,
	k kind,
) {
	t := c.terminated(cur)
	out.State.Terminated = t
	out.Ready = k == kindInit && !plan.Sidecar(spec) && cur.State == plan.Exited && cur.ExitCode == 0
	if c.Decision.Ending || k == kindEphemeral || out.Ready {
		return
	}
	if !plan.ShouldRestart(c.Pod, spec, cur.ExitCode) && cur.State != plan.Unknown {
		return
	}

	waiting := c.failure(spec)
	if until := c.Memory.Backoffs[spec.Name].Until(cur.Finished, c.Now, c.maxBackoff()); waiting == nil &&
		!until.IsZero() {
		waiting = &v1.ContainerStateWaiting{Reason: ReasonCrashLoop, Message: fmt.Sprintf(
			"back-off %s restarting failed container=%s pod=%s_%s(%s)",
			c.Memory.Backoffs[spec.Name].Delay,
			spec.Name,
			c.Pod.Name,
			c.Pod.Namespace,
			c.Pod.UID,
		)}
	}

	if waiting == nil && old != nil && old.State.Waiting != nil &&
		old.State.Waiting.Reason == ReasonCrashLoop &&
		old.LastTerminationState.Terminated != nil &&
		old.LastTerminationState.Terminated.ContainerID == t.ContainerID {
		// the back-off is over, the next instance on its way
		waiting = old.State.Waiting
	}

	if waiting != nil {
		out.State = v1.ContainerState{Waiting: waiting}
		out.LastTerminationState = v1.ContainerState{Terminated: t}
	}
}

func (c *computer) maxBackoff() time.Duration {
	if c.MaxBackoff > 0 {
		return c.MaxBackoff
	}
	return plan.MaxBackoff
}

// maxMessages bounds the termination messages of all containers of a pod, as kubelet does: each may have its
// part.
const maxMessages = 12 << 10

func (c *computer) terminated(o *plan.Container) *v1.ContainerStateTerminated {
	message := o.Message
	if most := maxMessages / max(1, len(c.Pod.Spec.InitContainers)+len(c.Pod.Spec.Containers)+len(c.Pod.Spec.EphemeralContainers)); len(message) > most {
		// a character may have been cut
		message = strings.ToValidUTF8(message[:most], "")
	}

	out := &v1.ContainerStateTerminated{
		ExitCode:    o.ExitCode,
		Reason:      o.Reason,
		Message:     message,
		StartedAt:   stamp(o.Started),
		FinishedAt:  stamp(o.Finished),
		ContainerID: c.Runtime + "://" + o.ID,
	}

	switch {
	case o.State == plan.Unknown:
		out.Reason, out.ExitCode = ReasonUnknown, unknownExit
	case out.Reason != "":
	case o.ExitCode == 0:
		out.Reason = "Completed"
	default:
		out.Reason = "Error"
	}

	return out
}

// stamp has the API's resolution of one second, so that what is read back equals what was written.
func stamp(t time.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Time{}
	}
	return metav1.NewTime(t.Truncate(time.Second))
}
