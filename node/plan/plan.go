// Package plan decides what happens next to one pod. It is pure: it sees the pod that the API wants, what the
// container runtime has, what this agent remembers and the time, and answers with the steps to take now and
// the time to look again. It does no I/O, so the same input always gives the same answer, and any loss, delay
// or repetition of events only changes when it is asked.
//
// The rules are those of kubelet: init containers one after the other, restartable init containers (sidecars)
// gate the next one by being started, application containers start in the order of the spec, back-off per
// container, and termination takes the sidecars last, in reverse order
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/).
package plan

import (
	"cmp"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// State is the state of a container as the runtime tells it.
type State int

// The states of a container. A container of a runtime that answers "unknown" counts as exited with an unknown
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
	IPs     []string // primary first; known for a ready sandbox

	Annotations map[string]string // of the pod when it was made
}

// Container is one instance of one container of the pod in the runtime.
type Container struct {
	ID, Name, SandboxID        string
	Attempt                    uint32 // restart count when it was created
	Hash                       string // of the container's spec, from the annotation
	State                      State
	Created, Started, Finished time.Time
	ExitCode                   int32
	Reason, Message            string
	Image, ImageID             string
	Grace                      int64  // terminationGracePeriodSeconds at creation, for pods the API forgot
	PreStop, Ports             string // as JSON, for pods the API forgot: its hook, and what that may name
	UID, GID                   int64
	Groups                     []int64
	HasUser                    bool
	RecursiveReadOnly          []string // container paths of mounts that are so
}

// Observed is all that the runtime has of one pod.
type Observed struct {
	Sandboxes  []Sandbox
	Containers []Container
}

// Failure is a step that failed: it is not tried again before Retry.
type Failure struct {
	Reason, Message string
	At, Retry       time.Time
	Count           int
}

// Backoff is the crash-loop state of one container.
type Backoff struct {
	Delay   time.Duration
	Updated time.Time
}

// Health is what the probes of a running container instance found.
type Health struct {
	Started, Ready bool
	Unhealthy      string // why it must be restarted: "liveness" or "startup"; empty: it need not
	Grace          *int64 // the failed probe's own terminationGracePeriodSeconds
}

// Memory is what the agent knows beside the API and the runtime. All of it may be lost: it is then found
// again, at worst after a retry.
type Memory struct {
	InFlight map[string]bool    // keys of steps that are being done
	Failures map[string]Failure // by key of the step
	Backoffs map[string]Backoff // by container name
	Images   map[string]string  // by container name: the image that was found or pulled for the next start
	Health   map[string]Health  // by container ID
	// sandboxes whose stop was carried through: one that is not ready may still hold its network
	Stopped map[string]bool
	// all volumes that containers use are mounted, were they out of date: containers can start
	Mounted  bool
	Prepared bool    // what the volumes show is up to date
	TornDown bool    // volumes are unmounted and the cgroup is gone
	Reported bool    // the API has the final status
	Ended    *Ending // the agent ended the pod: deadline, eviction, admission
	Gone     bool    // the API has no such pod (any more)
}

// Ending is a decision of the agent that the pod must end.
type Ending struct {
	Reason, Message string
	Disruption      string // message of the condition DisruptionTarget: it was not the pod's fault
	At              time.Time
}

// Input is all that a decision depends on.
type Input struct {
	Pod        *v1.Pod
	Observed   Observed
	Memory     Memory
	Now        time.Time
	MaxBackoff time.Duration // 0: 300 s
	// Logged is the attempt that follows those whose logs are there, by container name: of a pod that nothing
	// else tells of.
	Logged map[string]uint32
}

// Verb names what a step does.
type Verb string

// The verbs. Pull, Prepare and CreateSandbox run side by side; Start needs all three.
const (
	Prepare         Verb = "prepare"        // volumes, directories, files
	CreateSandbox   Verb = "create-sandbox" // Attempt
	StopSandbox     Verb = "stop-sandbox"   // ID
	RemoveSandbox   Verb = "remove-sandbox" // ID; takes its containers along
	Pull            Verb = "pull"           // Name
	Start           Verb = "start"          // Name, Attempt, ID of the sandbox
	Stop            Verb = "stop"           // Name, ID, Grace, Why
	RemoveContainer Verb = "remove"         // ID
	Teardown        Verb = "teardown"       // volumes, cgroup; with Gone also the pod's directories
	Finalize        Verb = "finalize"       // DELETE in the API
	Forget          Verb = "forget"         // nothing is left
)

// Step is one thing to do.
type Step struct {
	Verb    Verb
	Name    string // of the container
	ID      string
	Attempt uint32
	Grace   time.Duration
	Why     string // reason of a Stop, for the event
	Restart bool   // the Start replaces an instance that ended: it counts for the back-off
}

// Key names the step among those in flight and those that failed: at most one step of a key runs at a time.
func (s Step) Key() string {
	switch s.Verb {
	case Pull, Start:
		return string(s.Verb) + "/" + s.Name
	case Stop, RemoveContainer, StopSandbox, RemoveSandbox:
		return string(s.Verb) + "/" + s.ID
	}
	return string(s.Verb)
}

// Decision is what to do now.
type Decision struct {
	Steps   []Step
	Requeue time.Time // zero: an event will come
	// Ending tells that the pod is on its way out, for the status: nothing is started any more.
	Ending bool
	// Deadline is set when activeDeadlineSeconds has just been exceeded.
	Deadline bool
}

// Decide says what to do next.
func Decide(in Input) Decision {
	p := &planner{Input: in, view: viewOf(in.Pod, in.Observed)}
	if p.MaxBackoff == 0 {
		p.MaxBackoff = MaxBackoff
	}

	switch {
	case p.ending():
		p.out.Ending = true
		p.end()
	default:
		p.live()
	}

	return p.out
}

type planner struct {
	Input
	view
	out Decision
}

// do adds a step unless it is being done or must wait after a failure.
func (p *planner) do(s Step) bool {
	key := s.Key()
	if p.Memory.InFlight[key] {
		return false
	}

	if f, failed := p.Memory.Failures[key]; failed && f.Retry.After(p.Now) {
		p.wake(f.Retry)
		if shown := f.At.Add(PullErrorShown); s.Verb == Pull && shown.After(p.Now) {
			p.wake(shown)
		}

		return false
	}

	p.out.Steps = append(p.out.Steps, s)
	return true
}

// PullErrorShown is how long the status shows the error of a failed pull before it shows the back-off.
const PullErrorShown = 2 * time.Second

func (p *planner) wake(at time.Time) {
	if p.out.Requeue.IsZero() || at.Before(p.out.Requeue) {
		p.out.Requeue = at
	}
}

// ending reports whether the pod must go: the API said so, the agent said so, it ended by itself, or its time
// is up.
func (p *planner) ending() bool {
	if p.Memory.Gone || p.Pod.DeletionTimestamp != nil || p.Memory.Ended != nil ||
		Terminal(p.Pod.Status.Phase) {
		return true
	}

	if limit := p.Pod.Spec.ActiveDeadlineSeconds; limit != nil && p.Pod.Status.StartTime != nil {
		at := p.Pod.Status.StartTime.Add(time.Duration(*limit) * time.Second)
		if !p.Now.Before(at) {
			p.out.Deadline = true
			return true
		}

		p.wake(at)
	}

	return p.finished(p.Pod)
}

// Terminal reports whether a phase is final.
func Terminal(phase v1.PodPhase) bool { return phase == v1.PodSucceeded || phase == v1.PodFailed }

// view is the observation, sorted: the sandbox that counts and, of each container, the newest instance.
type view struct {
	sandbox *Sandbox              // the newest one, ready or not
	ready   *Sandbox              // the newest one, if ready
	latest  map[string]*Container // newest instance by name, of any sandbox or known from the API only
}

func viewOf(pod *v1.Pod, o Observed) view {
	v := view{latest: map[string]*Container{}}
	v.sandbox = newestSandbox(o.Sandboxes)
	if v.sandbox != nil && v.sandbox.Ready {
		v.ready = v.sandbox
	}

	for i := range o.Containers {
		c := &o.Containers[i]
		if old := v.latest[c.Name]; old == nil || newer(c, old) {
			v.latest[c.Name] = c
		}
	}

	v.recall(pod)
	return v
}

func newestSandbox(all []Sandbox) *Sandbox {
	if len(all) == 0 {
		return nil
	}
	i := slices.MaxFunc(all, func(a, b Sandbox) int {
		return cmp.Or(
			cmp.Compare(a.Attempt, b.Attempt),
			a.Created.Compare(b.Created),
			cmp.Compare(a.ID, b.ID),
		)
	})
	return &i
}

// newer orders instances of one container. A running instance counts before any other: two cannot run, but if
// a runtime ever says so, the higher attempt is the one we keep.
func newer(a, b *Container) bool {
	return cmp.Or(
		cmp.Compare(a.Attempt, b.Attempt),
		a.Created.Compare(b.Created),
		cmp.Compare(a.ID, b.ID),
	) > 0
}

// current is the newest instance, if it belongs to the sandbox that counts. Instances of earlier sandboxes
// are history.
func (v view) current(name string) *Container {
	if c := v.latest[name]; c != nil && v.sandbox != nil && c.SandboxID == v.sandbox.ID {
		return c
	}
	return nil
}
