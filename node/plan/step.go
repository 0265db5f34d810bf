package plan

import (
	"cmp"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podspec"
)

// Verb is what a step does.
type Verb uint8

// The verbs, in the order in which a decision lists its steps. Prepare, CreateSandbox and Pull run side by
// side; Start needs all three.
const (
	Prepare         Verb = iota // mounts volumes, or brings them up to date
	CreateSandbox               // Attempt
	Pull                        // Name, Image
	Resize                      // ID of the sandbox, Grant, Sizes; changes resources in place
	Start                       // Name, Attempt, ID of the sandbox, Restart
	Stop                        // Name, ID, Grace, Why
	StopSandbox                 // ID
	RemoveContainer             // Name, ID, Restart, KeepLog
	RemoveSandbox               // ID; with its containers
	Teardown                    // unmounts volumes, removes the pod's directory and control group
	Finalize                    // deletes the object in the API
	Forget                      // nothing is left: removes the logs

	verbs = iota
)

var verbNames = [verbs]string{
	Prepare:         "prepare",
	CreateSandbox:   "create-sandbox",
	Pull:            "pull",
	Resize:          "resize",
	Start:           "start",
	Stop:            "stop",
	StopSandbox:     "stop-sandbox",
	RemoveContainer: "remove",
	RemoveSandbox:   "remove-sandbox",
	Teardown:        "teardown",
	Finalize:        "finalize",
	Forget:          "forget",
}

// String returns the verb as logs and test scripts have it.
func (v Verb) String() string { return verbNames[v] }

// makes reports whether the verb brings a pod up. Such steps are cancelled when the pod must end.
func (v Verb) makes() bool {
	return v == Prepare || v == CreateSandbox || v == Pull || v == Resize || v == Start
}

// Why a container is stopped.
const (
	killing        = "Killing" // the pod ends
	FailedLiveness = "Liveness"
	FailedStartup  = "Startup"
	Changed        = "Changed"              // another image is wanted
	Resized        = "Resized"              // other resources are given, by its resizePolicy not in place
	sandboxChanged = "SandboxChanged"       // the sandbox is to be replaced
	restartAll     = "RestartAllContainers" // by a rule of a container that ended
	duplicate      = "Duplicate"            // a newer instance of the container runs
)

// Step is one thing to do. Which fields are set depends on the verb.
type Step struct {
	Verb Verb

	// Name is that of the container.
	Name string
	ID   string

	// Image is as the spec calls it.
	Image   string
	Attempt uint32
	Grace   time.Duration
	Why     string

	// Restart means that an instance replaces one that ended, or that one which ended is removed for that: it
	// counts for the back-off. Of a Resize it means that instances which were stopped for it wait to be
	// replaced.
	Restart bool

	// KeepLog means that the log of an instance outlives it.
	KeepLog bool

	// Grant is the one that a Resize puts in force, and Sizes are the running instances that do not have
	// their part of it yet.
	Grant *Grant
	Sizes []Size
}

// Key identifies a step among those in flight and those that failed: at most one step of a key runs at once.
type Key struct {
	Verb Verb

	// Object is a container's name for Pull and Start, the ID of what other steps are about, or empty.
	Object string
}

// Key returns the step's key.
func (s Step) Key() Key {
	switch s.Verb {
	case Pull, Start:
		return Key{s.Verb, s.Name}
	case Stop, StopSandbox, RemoveContainer, RemoveSandbox:
		return Key{s.Verb, s.ID}
	}
	return Key{Verb: s.Verb}
}

// String returns the key as logs and test scripts have it: "start/app".
func (k Key) String() string {
	if k.Object == "" {
		return k.Verb.String()
	}
	return k.Verb.String() + "/" + k.Object
}

// Decision is what to do now.
type Decision struct {
	// Steps to begin, by verb, then in the order of their containers in the spec, then by ID.
	Steps []Step

	// Cancel are steps in flight that are no longer wanted, or are to be done in another way when they have
	// ended.
	Cancel []Key

	// Requeue is when to decide again if nothing happens before. The zero time: something will happen.
	Requeue time.Time

	// Ended is set when the agent has just decided that the pod must end, as its deadline is over.
	Ended *Ending

	// Resized is set when the resources of a grant have just come into force everywhere.
	Resized *Grant

	// View is what was decided about, for the status and for the steps.
	View View
}

// sortSteps gives steps the order that Decision promises.
func sortSteps(pod *v1.Pod, steps []Step) {
	if len(steps) < 2 {
		return
	}

	place := map[string]int{}
	for c := range podspec.All(pod) {
		place[c.Name] = len(place)
	}

	slices.SortFunc(steps, func(a, b Step) int {
		return cmp.Or(
			cmp.Compare(a.Verb, b.Verb),
			cmp.Compare(place[a.Name], place[b.Name]),
			cmp.Compare(a.ID, b.ID),
		)
	})
}
