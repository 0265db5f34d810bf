package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/e2e/machine"
)

// Absolute makes paths absolute, for programs that run elsewhere.
func Absolute(paths ...*string) error {
	for _, p := range paths {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}

		*p = abs
	}
	return nil
}

// OnMachine calls f with a machine made of namespaces, which f boots. Its files are in dir, where f may write
// others. What a killed run has left there is removed before, and everything after.
func OnMachine(ctx context.Context, dir string, f func(m *machine.Machine) error) (err error) {
	m := machine.At(filepath.Join(dir, "machine"))
	clean := func() error {
		return errors.Join(m.Halt(context.WithoutCancel(ctx)), os.RemoveAll(dir))
	}

	if err := clean(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clean()) }()

	return f(m)
}
