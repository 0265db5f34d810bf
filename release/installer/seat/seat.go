// Package seat gives the two seats of a node, that of the container runtime and that of the agent, to
// trivet's programs, and back to what the node had, on a machine that kubeadm has made a node and that runs
// systemd.
package seat

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/removal"

	"github.com/trivet-node/trivet/release/installer/edit"
	"github.com/trivet-node/trivet/release/installer/swap"
)

// Units is the machine's systemd.
type Units interface {
	Start(ctx context.Context, unit string) error
	StartSoon(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
	RestartSoon(ctx context.Context, unit string) error
	Kill(ctx context.Context, unit string) error
	Enable(ctx context.Context, unit string) error
	Disable(ctx context.Context, unit string) error
	Reload(ctx context.Context) error

	Exists(ctx context.Context, unit string) (bool, error)
	Active(ctx context.Context, unit string) (bool, error)
	Enabled(ctx context.Context, unit string) (bool, error)
	Users(ctx context.Context, unit string) ([]string, error)

	Process(ctx context.Context, unit string) (int, error)
	Starts(ctx context.Context, unit string) (string, error)
	Program(ctx context.Context, unit string) (string, error)
	Arguments(ctx context.Context, unit string) ([]string, error)
	Text(ctx context.Context, unit string) (string, error)
	Of(pid int) (string, error)
}

// Pods are the processes of the machine's pods, whatever runtime has made them.
type Pods interface {
	// Kill kills all and returns when none is left.
	Kill(ctx context.Context) error

	// Using are those whose root file system is made of directories below one.
	Using(dir string) ([]int, error)
}

// Host is the machine and what the installer keeps on it.
type Host struct {
	Units  Units
	Pods   Pods
	Folder swap.Folder

	// Root is where the machine's files are; empty: /.
	Root string

	Log *slog.Logger

	// patience bounds the start of a server until it answers; 0: serviceLimit. second is what the times in
	// the status of a node are whole ones of; 0: a second.
	patience, second time.Duration
}

// Units of agents.
const (
	kubeletUnit = "kubelet.service"
	nodeUnit    = "trivet-node.service"
)

// isKilled reports that the process is to end, which is not that a call took too long.
func isKilled(ctx context.Context) bool { return errors.Is(context.Cause(ctx), context.Canceled) }

func (h Host) originals() (*edit.Originals, error) { return edit.Open(h.Folder.Path("original")) }

// installed is a file of a set at its path.
type installed struct {
	name, path string
	mode       fs.FileMode
}

// install writes files of a set.
func (h Host) install(state swap.State, files []installed) error {
	originals, err := h.originals()
	if err != nil {
		return err
	}

	for _, f := range files {
		data, err := os.ReadFile(h.payload(state, f.name))
		if err != nil {
			return err
		}
		if err := originals.Write(h.Root+f.path, data, f.mode); err != nil {
			return fmt.Errorf("install %s: %w", f.path, err)
		}
	}
	return nil
}

// restore gives paths back.
func (h Host) restore(paths ...string) error {
	originals, err := h.originals()
	if err != nil {
		return err
	}

	for _, path := range paths {
		if err := originals.Restore(h.Root + path); err != nil {
			return fmt.Errorf("give %s back: %w", path, err)
		}
	}
	return nil
}

// payload is a file of a set.
func (h Host) payload(state swap.State, name string) string {
	return h.Folder.Path("payload", string(state), name)
}

// serviceLimit bounds the start of a server until it answers.
const serviceLimit = 30 * time.Second

func (h Host) startLimit() time.Duration {
	if h.patience > 0 {
		return h.patience
	}
	return serviceLimit
}

// stopGrace is how long a container may take to end when its runtime goes. The node is without its agent
// meanwhile.
const stopGrace = 4 * time.Second

// memory is a record of what a seat was like before.
func memory[T any](h Host) (*durable.Store[T], error) {
	return durable.OpenStore[T](h.Folder.Path("before"), false)
}

// isMissing reports that a record is not there.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// current reports whether a unit's main process runs the program that is at a path now.
func (h Host) current(ctx context.Context, unit, path string) (bool, error) {
	program, err := h.Units.Program(ctx, unit)
	return program == h.real(path), err
}

// real is the path of a program as its process has it: on some machines /usr/local is a link.
func (h Host) real(path string) string {
	dir, err := filepath.EvalSymlinks(h.Root + filepath.Dir(path))
	if err != nil {
		return path
	}
	return filepath.Join(strings.TrimPrefix(dir, h.Root), filepath.Base(path))
}

// sweep removes what killed writers of the administrator's files have left beside them.
func (h Host) sweep() error {
	var failed error
	for _, path := range places {
		failed = errors.Join(failed, durable.Sweep(h.Root+path))
	}
	return failed
}

// sum is one of the contents of files.
func (h Host) sum(paths ...string) (string, error) {
	sum := sha256.New()
	for _, path := range paths {
		data, err := os.ReadFile(h.Root + path)
		if err != nil && !isMissing(err) {
			return "", err
		}
		fmt.Fprintf(sum, "%s %x\n", path, sha256.Sum256(data))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// removeAll removes what a part has kept, by patterns of its own.
func (h Host) removeAll(patterns ...string) error {
	var failed error
	for _, pattern := range patterns {
		paths, err := filepath.Glob(h.Root + pattern)
		failed = errors.Join(failed, err)
		for _, path := range paths {
			// Containers that were killed have left mounts.
			failed = errors.Join(failed, mount.UnmountBelow(path), removal.Tree(path))
		}
	}
	return failed
}
