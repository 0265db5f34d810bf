package ociruntime

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// ErrRefused is matched by an Error of a runtime that ended by itself with an exit code other than 0: what
// it was asked for cannot be done. A runtime that was killed or took too long has not refused.
var ErrRefused = errors.New("OCI runtime refused")

// ExitCode is the Cause of such an Error.
type ExitCode int

// Error returns "exit code N".
func (c ExitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Error is a call of a runtime that failed.
type Error struct {
	Program, Verb, ID string

	// Message is what the runtime logged; empty if it logged nothing.
	Message string

	// Cause says how the process ended or why it did not start.
	Cause error
}

// Error returns the program's base name, the verb, the container's ID, and Message or else Cause.
func (e *Error) Error() string {
	message := e.Message
	if message == "" {
		message = e.Cause.Error()
	}
	return fmt.Sprintf("%s %s %s: %s", path.Base(e.Program), e.Verb, e.ID, message)
}

// Unwrap returns Cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is reports whether target is ErrRefused and the runtime has refused.
func (e *Error) Is(target error) bool {
	code, ok := errors.AsType[ExitCode](e.Cause)
	return target == ErrRefused && ok && code > 0
}

// IsNotFound reports whether a call failed because the runtime does not know the container.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return false
	}
	return strings.Contains(e.Message, "does not exist") ||
		strings.Contains(e.Message, "No such file or directory")
}
