package life

// SandboxState is the state of a pod sandbox. The texts are in the records.
type SandboxState string

// States of a sandbox, in the order in which they follow each other.
const (
	// Making is a sandbox that is not finished. No client sees it.
	Making SandboxState = "making"

	Ready SandboxState = "ready"

	// Stopped is CRI's NOTREADY: it takes no containers any more.
	Stopped SandboxState = "stopped"
)

// Sandbox is what decisions need to know of a sandbox's record.
type Sandbox struct {
	State SandboxState

	// HasInit is true if it has a process, the init of a PID namespace that its containers share.
	HasInit bool
}

// SandboxAtStart decides on a sandbox that an earlier server has recorded. initLives is what the monitor says
// of its init.
func SandboxAtStart(s Sandbox, initLives bool) Step {
	switch {
	case s.State == Making:
		return Undo
	case s.State == Ready && s.HasInit && !initLives:
		return Finish
	}
	return Keep
}

// EndsWithInit reports whether a sandbox whose init has ended, and with it all that ran in the PID namespace,
// stops being ready. One that is being made finds out by itself.
func EndsWithInit(s SandboxState) bool { return s == Ready }
