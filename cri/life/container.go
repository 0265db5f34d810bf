// Package life decides what follows in the lives of pod sandboxes and their containers: what becomes of one
// at the start of the server, what a call may do with it, and how an exit is reported. It is pure: the clock,
// the kernel and the records are cri/sandbox's and cri/container's, which carry out what is decided here.
package life

import (
	"errors"
	"time"

	"github.com/trivet-node/trivet/cri/monitor"
)

// State is the state of a container. The numbers are those of CRI's ContainerState; they are in the records.
type State int

// States of a container, in the order in which they follow each other.
const (
	Created State = iota
	Running
	Exited
)

// String returns the state's name, in lower case.
func (s State) String() string {
	switch s {
	case Created:
		return "created"
	case Running:
		return "running"
	case Exited:
		return "exited"
	}
	return "unknown"
}

// Container is what decisions need to know of a container's record.
type Container struct {
	State State

	// Complete is true once the creation has finished.
	Complete bool

	// Discarded is true once the removal has begun of a container that was never started.
	Discarded bool

	// Refused is true if the OCI runtime could not make the container, so that its start fails.
	Refused bool
}

// Process is what the monitor says of a container or a sandbox's init.
type Process int

// What the monitor may say.
const (
	// ProcessUnknown: the monitor does not have the process any more, or never had it.
	ProcessUnknown Process = iota
	ProcessAlive
	ProcessEnded
)

// ProcessOf returns what the monitor's status of a container means; known is false if it has none.
func ProcessOf(status monitor.Status, known bool) Process {
	switch {
	case !known:
		return ProcessUnknown
	case status.Exit != nil:
		return ProcessEnded
	}
	return ProcessAlive
}

// Step is what is done with a sandbox or a container at the start of the server.
type Step string

// Steps.
const (
	// Keep leaves it as it is.
	Keep Step = "keep"

	// Undo destroys what was not finished.
	Undo Step = "undo"

	// Remove finishes a removal that was begun, or removes what belongs to no pod.
	Remove Step = "remove"

	// Finish records an end that no server has seen.
	Finish Step = "finish"

	// Adopt waits for the end of a process that lives.
	Adopt Step = "adopt"

	// AdoptStart is Adopt for a container whose start may have been cut off before its record.
	AdoptStart Step = "adopt, and look whether it was started"
)

// ContainerAtStart decides on a container that an earlier server has recorded. inSandbox is false if its
// sandbox is gone.
func ContainerAtStart(c Container, inSandbox bool, p Process) Step {
	switch {
	case !c.Complete:
		return Undo
	case !inSandbox, c.Discarded:
		return Remove
	case c.State == Exited, c.Refused:
		return Keep
	case p != ProcessAlive:
		return Finish
	case c.State == Created:
		return AdoptStart
	}

	return Adopt
}

// RecordsExit reports whether an exit is recorded. The exit of a container that is being removed before it
// was ever started is not: it would be taken for that of a program that failed.
func RecordsExit(c Container) bool { return c.State != Exited && !c.Discarded }

// Errors of calls that come at the wrong time in a container's life.
var (
	ErrExited    = errors.New("it has exited")
	ErrDiscarded = errors.New("it is being removed")
)

// StartStep is what StartContainer does.
type StartStep int

// Steps of StartContainer.
const (
	// StartNothing is success: the container runs already.
	StartNothing StartStep = iota

	// StartProgram lets the user's program run.
	StartProgram

	// StartFails ends the container, whose first process could not be made.
	StartFails
)

// Start decides what StartContainer does.
func Start(c Container) (StartStep, error) {
	switch {
	case c.State == Running:
		return StartNothing, nil
	case c.State == Exited:
		return StartNothing, ErrExited
	case c.Discarded:
		return StartNothing, ErrDiscarded
	case c.Refused:
		return StartFails, nil
	}
	return StartProgram, nil
}

// Started returns the state and the time of the start that are recorded after the program was let run at now.
// It may have ended already, at finished: then it did not start after that.
func Started(s State, finished, now time.Time) (State, time.Time) {
	if s != Exited {
		return Running, now
	}
	if finished.Before(now) {
		return Exited, finished
	}
	return Exited, now
}

// Update reports whether there is a process whose resources UpdateContainerResources changes. One that has
// ended, or never was, needs none.
func Update(c Container) (bool, error) {
	if c.Discarded {
		return false, ErrDiscarded
	}
	return c.State != Exited && !c.Refused, nil
}

// StopStep is what StopContainer does first.
type StopStep int

// Steps of StopContainer.
const (
	// StopNothing is success: nothing runs.
	StopNothing StopStep = iota

	// StopAsks sends the stop signal, and kills when the grace period is over.
	StopAsks

	// StopKills kills at once: there is no grace period, or the program was never started.
	StopKills
)

// Stop decides what StopContainer does with a container whose process lives, if live is true.
func Stop(s State, live bool, grace time.Duration) StopStep {
	switch {
	case !live, s == Exited:
		return StopNothing
	case s == Running && grace > 0:
		return StopAsks
	}
	return StopKills
}
