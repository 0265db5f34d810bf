// Package plan decides what happens next to one pod. A Pod holds all that the agent knows of it: what is
// wanted, what was seen, what is being done and what failed. It has no lock, no clock and does no I/O, so
// that the same calls always give the same steps, and any loss, delay or repetition of events only changes
// when Decide is called.
//
// The rules are those of kubelet: init containers one after the other, restartable init containers (sidecars)
// gate the next one by being started, application containers start in the order of the spec, back-off per
// container, and termination takes the sidecars last, in reverse order
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/).
package plan

import (
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podspec"
)

// State is the state of a container in the runtime.
type State int

// The states of a container. One of which the runtime answers "unknown" counts as exited with an unknown
// code.
const (
	Created State = iota
	Running
	Exited
	Unknown
)

// Sandbox is one sandbox of the pod in the runtime.
type Sandbox struct {
	ID      string
	Attempt uint32
	Ready   bool
	Created time.Time

	// IPs are the addresses, the primary one first. Only those of a ready sandbox are known.
	IPs []string

	// Annotations are those of the pod when the sandbox was made.
	Annotations map[string]string
}

// Container is one instance of one container of the pod in the runtime.
type Container struct {
	ID        string
	Name      string
	SandboxID string

	// Attempt is the restart count of the container when the instance was created.
	Attempt uint32

	// Hash is that of the container's spec when the instance was created, from the annotation.
	Hash string

	// CreatedWith are the resources that it was created with, from an annotation; nil for an instance of
	// another agent.
	CreatedWith *podspec.Amounts

	State    State
	Created  time.Time
	Started  time.Time
	Finished time.Time
	ExitCode int32
	Reason   string
	Message  string
	Image    string
	ImageID  string

	// What is needed to stop it when the API no longer has the pod, from annotations: the
	// terminationGracePeriodSeconds at creation, and as JSON its preStop hook and the ports that may be named
	// there.
	Grace   int64
	PreStop string
	Ports   string

	// The user of its first process, if HasUser.
	UID     int64
	GID     int64
	Groups  []int64
	HasUser bool

	// Resources are what the runtime says that the instance may use; nil if it does not say so.
	Resources *Resources

	// RecursiveReadOnly are the container paths of the mounts that are read-only with all below them.
	RecursiveReadOnly []string
}

// Resources are what an instance may use, as a runtime has them. A limit of 0 or less is none.
type Resources struct {
	// CPUShares are on the scale of cgroup v1, on v2 as well: 1024 for each CPU that is requested.
	CPUShares int64

	// CPUQuota and CPUPeriod are in microseconds.
	CPUQuota  int64
	CPUPeriod int64

	// Memory is in bytes.
	Memory int64
}

// Observed is all that the node has of one pod at one time.
type Observed struct {
	Sandboxes  []Sandbox
	Containers []Container

	// Mounted means that all volumes which containers of the pod use are mounted, perhaps with contents that
	// are out of date. Containers can start.
	Mounted bool

	// Logged is, by container name, the attempt that follows those whose logs are there, of a pod of whose
	// containers the runtime knows nothing.
	Logged map[string]uint32
}

// Health is what the probes of a running instance found.
type Health struct {
	Started bool
	Ready   bool

	// Unhealthy is the probe for which it must be restarted, FailedLiveness or FailedStartup, or empty.
	Unhealthy string

	// Grace is that probe's own terminationGracePeriodSeconds, nil if it has none.
	Grace *int64
}

// Ending is a decision of the agent that the pod must end: its deadline, preemption, rejection. The reason
// and message are those of the pod's status.
type Ending struct {
	Reason  string
	Message string

	// Disruption is the message of the condition DisruptionTarget, empty for a pod whose own fault it is.
	Disruption string

	// Grace is how long the containers have at most, nil if that is for the pod and its deletion to say.
	Grace *time.Duration

	At time.Time
}

// deadlineExceeded is the reason of a pod that was active for longer than its activeDeadlineSeconds.
const deadlineExceeded = "DeadlineExceeded"

// Terminal reports whether a phase is final.
func Terminal(phase v1.PodPhase) bool { return phase == v1.PodSucceeded || phase == v1.PodFailed }
