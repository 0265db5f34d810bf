// Package reason holds the errors that users of the API see. Each has a reason, in kubelet's words, that
// controllers and people match on, and some an event that says more than the status does.
package reason

import "errors"

// Error is an error with the reason that users see.
type Error struct {
	// Reason is that of the container's waiting state, such as ErrImagePull.
	Reason string

	// Event is sent beside the one for the step that failed; nil is none.
	Event *Event
	Err   error
}

// Event is what an event says.
type Event struct {
	Reason, Message string
}

// Error returns the text without the reason.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error that has the reason.
func (e *Error) Unwrap() error { return e.Err }

// New returns err with a reason.
func New(reason string, err error) error { return &Error{Reason: reason, Err: err} }

// WithEvent returns err with a reason and an event of its own.
func WithEvent(reason string, event Event, err error) error {
	return &Error{Reason: reason, Event: &event, Err: err}
}

// Of returns the reason of an error, or an empty string if it has none.
func Of(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}

// EventOf returns an error's own event, or nil if it has none.
func EventOf(err error) *Event {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Event
	}
	return nil
}
