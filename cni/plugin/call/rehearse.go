package call

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/namespace"
)

// Rehearse calls f, which does for nobody what an ADD would do, in a network namespace of its own, with which
// all that f makes ends: so STATUS knows what a kernel, or a program that is not there, would refuse. Without
// the privilege of making a namespace it does nothing.
func Rehearse(f func() error) error {
	entered := false
	err := namespace.InOwnNet(func() error {
		entered = true
		return f()
	})
	if !entered && errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}
