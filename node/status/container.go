package status

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
)

// Reasons of container states, in kubelet's words; users and controllers match on them.
const (
	reasonCreating     = "ContainerCreating"
	reasonInitializing = "PodInitializing"
	ReasonCrashLoop    = "CrashLoopBackOff"
	reasonPullError    = "ErrImagePull"
	ReasonPullBackOff  = "ImagePullBackOff"
	reasonUnknown      = "ContainerStatusUnknown"
	reasonLost         = "Unknown"
)

// unknownExit is the exit code that is shown for a container whose own is not known.
const unknownExit = 137

// kind is the list of the spec that a container is in.
type kind int

const (
	application kind = iota
	initContainer
	ephemeral
)

// subject is the container whose status is computed.
type subject struct {
	spec *v1.Container

	// old is what the API shows; nil: nothing.
	old  *v1.ContainerStatus
	kind kind
}

// container computes the status of one container: what its newest instance does, and how the one before it
// ended.
func (c *computer) container(s subject) v1.ContainerStatus {
	out := v1.ContainerStatus{Name: s.spec.Name, Image: s.spec.Image, Started: new(false)}
	all := c.Started(s.spec.Name)
	removed := c.Removed(s.spec.Name)
	if removed != nil && s.old != nil && s.old.RestartCount > int32(removed.Attempt) {
		// The API has it as the last state, or something newer.
		removed = nil
	}

	switch {
	case len(all) == 0 && removed != nil:
		end := c.terminated(removed)
		out.RestartCount = int32(removed.Attempt)
		out.ContainerID = end.ContainerID
		out.ImageID = removed.ImageID
		out.State, out.LastTerminationState = restarting(c.View, end, c.waiting(s))
		return out

	case len(all) == 0:
		c.unseen(&out, s)
		return out
	}

	cur := all[0]
	out.RestartCount = c.count(s, cur)
	out.ContainerID = c.node.Runtime + "://" + cur.ID
	out.ImageID = cur.ImageID
	if cur.Image != "" {
		out.Image = cur.Image
	}

	switch {
	case len(all) > 1:
		out.LastTerminationState.Terminated = c.terminated(all[1])
	case removed != nil && removed.ID != cur.ID:
		out.LastTerminationState.Terminated = c.terminated(removed)
	case s.old != nil:
		out.LastTerminationState = c.before(s.old, out.RestartCount)
	}

	resourcer{c}.container(&out, s, cur)
	if cur.State == plan.Running {
		c.running(&out, s, cur)
	} else {
		c.ended(&out, s, cur)
	}

	return out
}

// count is the restart count of a container. It does not go back: a newer instance than those that the
// runtime has may have been removed.
func (c *computer) count(s subject, cur *plan.Container) int32 {
	if s.old != nil {
		return max(s.old.RestartCount, int32(cur.Attempt))
	}
	return int32(cur.Attempt)
}

// unseen shows a container of which the runtime has no instance.
func (c *computer) unseen(out *v1.ContainerStatus, s subject) {
	if s.old != nil {
		out.RestartCount = s.old.RestartCount
		out.ContainerID = s.old.ContainerID
		out.ImageID = s.old.ImageID
		out.LastTerminationState = *s.old.LastTerminationState.DeepCopy()
		if s.old.State.Terminated != nil {
			out.State.Terminated = s.old.State.Terminated.DeepCopy()
			out.Ready = s.old.Ready && s.kind == initContainer
			return
		}
	}

	if c.Down() && c.hadTurn(s) {
		c.vanished(out, s)
		return
	}

	if s.old != nil && s.old.State.Running != nil {
		out.LastTerminationState.Terminated = c.lost(s.old)
	}

	out.State.Waiting = c.waiting(s)
}

// vanished shows the end of a container of a pod that is down, of which the runtime has no instance.
func (c *computer) vanished(out *v1.ContainerStatus, s subject) {
	last := out.LastTerminationState.Terminated
	switch {
	case s.old != nil && s.old.State.Running != nil:
		out.State.Terminated = c.lost(s.old)
	case last != nil:
		out.State.Terminated, out.LastTerminationState.Terminated = last, nil
	default:
		out.State.Terminated = &v1.ContainerStateTerminated{
			Reason:   reasonUnknown,
			ExitCode: unknownExit,
			Message:  "The container could not be located when the pod was terminated",
		}
	}
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
			Reason:   reasonUnknown,
			ExitCode: unknownExit,
			Message: "The container could not be located when the pod was deleted.  " +
				"The container used to be Running",
		}
	}

	return &v1.ContainerStateTerminated{
		Reason:      reasonLost,
		ExitCode:    plan.LostExitCode,
		StartedAt:   old.State.Running.StartedAt,
		FinishedAt:  stamp(c.Now),
		ContainerID: old.ContainerID,
	}
}

// hadTurn reports whether a container that has no instance must have had one: it was shown to run, or
// initialization was over.
func (c *computer) hadTurn(s subject) bool {
	if s.old != nil && (s.old.State.Running != nil || s.old.LastTerminationState.Terminated != nil) {
		return true
	}
	initialized := condition(c.Pod.Status.Conditions, v1.PodInitialized)
	return s.kind == application && (initialized.Status == v1.ConditionTrue || c.initialized())
}

// waiting returns why a container that should run does not: what failed, or that its turn has not come.
func (c *computer) waiting(s subject) *v1.ContainerStateWaiting {
	if w := c.failure(s.spec); w != nil {
		return w
	}

	reason := reasonCreating
	if len(c.Pod.Spec.InitContainers) > 0 && (s.kind == initContainer || !c.initialized()) {
		reason = reasonInitializing
	}

	return &v1.ContainerStateWaiting{Reason: reason}
}

// failure returns why a container could not be started, nil if no step for it has failed. The error of a pull
// is shown for a moment before its back-off.
func (c *computer) failure(spec *v1.Container) *v1.ContainerStateWaiting {
	if f, _ := c.Failed(plan.Pull, spec.Name); f.Reason != "" {
		if f.Reason == reasonPullError && c.Now.Sub(f.At) >= plan.PullErrorShown {
			message := fmt.Sprintf("Back-off pulling image %q: %s: %s",
				spec.Image, reasonPullError, f.Message)
			return &v1.ContainerStateWaiting{Reason: ReasonPullBackOff, Message: message}
		}

		return &v1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
	}

	if f, _ := c.Failed(plan.Start, spec.Name); f.Reason != "" {
		return &v1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
	}

	return nil
}

// initialized reports whether nothing keeps application containers from starting.
func (c *computer) initialized() bool {
	for i := range c.Pod.Spec.InitContainers {
		spec := &c.Pod.Spec.InitContainers[i]
		all := c.Instances(spec.Name)
		switch {
		case len(all) == 0:
			return false
		case podspec.Sidecar(spec):
			if all[0].State == plan.Running && !c.Health[all[0].ID].Started {
				return false
			}

		case all[0].State != plan.Exited || all[0].ExitCode != 0:
			return false
		}
	}

	return true
}

// running shows an instance that runs.
func (c *computer) running(out *v1.ContainerStatus, s subject, cur *plan.Container) {
	out.State.Running = &v1.ContainerStateRunning{StartedAt: stamp(cur.Started)}
	if health := c.Health[cur.ID]; s.kind == application || podspec.Sidecar(s.spec) {
		out.Started = new(health.Started)
		out.Ready = health.Started && health.Ready
	}

	if cur.HasUser {
		out.User = &v1.ContainerUser{Linux: &v1.LinuxContainerUser{
			UID:                cur.UID,
			GID:                cur.GID,
			SupplementalGroups: cur.Groups,
		}}
	}

	for _, m := range s.spec.VolumeMounts {
		mount := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mount.RecursiveReadOnly = new(v1.RecursiveReadOnlyDisabled)
		}
		if m.ReadOnly && slices.Contains(cur.RecursiveReadOnly, path.Join("/", m.MountPath)) {
			mount.RecursiveReadOnly = new(v1.RecursiveReadOnlyEnabled)
		}

		out.VolumeMounts = append(out.VolumeMounts, mount)
	}
}

// ended shows an instance that ended: as such when it was the last, as a back-off when it will be replaced
// later.
func (c *computer) ended(out *v1.ContainerStatus, s subject, cur *plan.Container) {
	end := c.terminated(cur)
	out.State.Terminated = end
	out.Ready = s.kind == initContainer && !podspec.Sidecar(s.spec) && cur.State == plan.Exited &&
		cur.ExitCode == 0
	if c.Ending || s.kind == ephemeral || out.Ready {
		return
	}
	if !plan.ShouldRestart(c.Pod, s.spec, cur.ExitCode) && cur.State != plan.Unknown {
		return
	}

	waiting := c.failure(s.spec)
	if waiting == nil {
		waiting = c.crashLoop(s, cur)
	}

	if waiting != nil {
		out.State = v1.ContainerState{Waiting: waiting}
		out.LastTerminationState = v1.ContainerState{Terminated: end}
	}
}

// crashLoop returns the waiting state of an instance whose restart is held back, nil if it is not. When the
// back-off is over, what was shown stays until the next instance runs.
func (c *computer) crashLoop(s subject, cur *plan.Container) *v1.ContainerStateWaiting {
	if delay, until := c.Backoff(cur); !until.IsZero() {
		message := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
			delay, cur.Name, c.Pod.Name, c.Pod.Namespace, c.Pod.UID)
		return &v1.ContainerStateWaiting{Reason: ReasonCrashLoop, Message: message}
	}

	if s.old == nil || s.old.State.Waiting == nil || s.old.State.Waiting.Reason != ReasonCrashLoop {
		return nil
	}

	last := s.old.LastTerminationState.Terminated
	if last == nil || last.ContainerID != c.node.Runtime+"://"+cur.ID {
		return nil
	}

	return s.old.State.Waiting
}

// maxMessages bounds the termination messages of all containers of a pod, as kubelet does: each may have its
// part.
const maxMessages = 12 << 10

// terminated returns how an instance ended.
func (c *computer) terminated(o *plan.Container) *v1.ContainerStateTerminated {
	spec := &c.Pod.Spec
	containers := len(spec.InitContainers) + len(spec.Containers) + len(spec.EphemeralContainers)
	message := o.Message
	if most := maxMessages / max(1, containers); len(message) > most {
		// A character may have been cut.
		message = strings.ToValidUTF8(message[:most], "")
	}

	out := &v1.ContainerStateTerminated{
		ExitCode:    o.ExitCode,
		Reason:      o.Reason,
		Message:     message,
		StartedAt:   stamp(o.Started),
		FinishedAt:  stamp(o.Finished),
		ContainerID: c.node.Runtime + "://" + o.ID,
	}

	switch {
	case o.State == plan.Unknown:
		out.Reason, out.ExitCode = reasonUnknown, unknownExit
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
