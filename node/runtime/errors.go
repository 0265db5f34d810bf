package runtime

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Errors that callers tell from others with errors.Is.
var (
	// ErrTimeout: a command took longer than it may.
	ErrTimeout = errors.New("timed out")
	// ErrNotFound: the runtime does not have the container or sandbox.
	ErrNotFound = errors.New("not found")
	// ErrTooManyStreams: the runtime does not open another stream before earlier ones have ended.
	ErrTooManyStreams = errors.New("too many streams")
)

// callError is the runtime's error without gRPC's wording: users read these texts in events.
type callError struct {
	code    codes.Code
	message string
}

func (e *callError) Error() string { return e.message }

// GRPCStatus keeps the code for status.Code.
func (e *callError) GRPCStatus() *status.Status { return status.New(e.code, e.message) }

// Is matches the sentinel of the code.
func (e *callError) Is(target error) bool {
	switch e.code {
	case codes.NotFound:
		return target == ErrNotFound
	case codes.ResourceExhausted:
		return target == ErrTooManyStreams
	}
	return false
}

// plain makes a callError of an error of a call.
func plain(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		return &callError{code: s.Code(), message: s.Message()}
	}
	return err
}

// plainTimeout is plain for calls that run a command with a timeout.
func plainTimeout(err error) error {
	if status.Code(err) == codes.DeadlineExceeded {
		return fmt.Errorf("%w: %s", ErrTimeout, status.Convert(err).Message())
	}
	return plain(err)
}

// notImplemented reports whether the runtime does not serve the call. containerd 2.2 says so with another
// code.
func notImplemented(err error) bool {
	s := status.Convert(err)
	return s.Code() == codes.Unimplemented ||
		s.Code() == codes.Unknown && strings.Contains(s.Message(), "not implemented")
}

// unlessGone is plain for calls that end or remove something: that it is not there is a success.
func unlessGone(err error) error {
	if status.Code(err) == codes.NotFound {
		return nil
	}
	return plain(err)
}
