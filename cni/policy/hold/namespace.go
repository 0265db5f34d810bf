package hold

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/lockfile"
)

// Known reports whether trivet-netd has ever looked after policies here.
func (n Network) Known() bool {
	_, err := os.Stat(n.dir(namespacesDir))
	return err == nil
}

// Announce records which namespaces have policies: pods of others are not held from now on. It is called
// before rules change.
func (n Network) Announce(namespaces map[string]bool) error {
	dir := n.dir(namespacesDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return fmt.Errorf("record namespaces with network policies: %w", err)
	}

	var errs []error
	there := map[string]bool{}
	changed := false
	for _, e := range entries {
		if there[e.Name()] = true; !namespaces[e.Name()] {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
			changed = true
		}
	}
	for name := range namespaces {
		if there[name] || !durable.ValidName(name) {
			continue
		}
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
		changed = true
	}
	if changed {
		errs = append(errs, durable.SyncDir(dir))
	}

	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("record namespaces with network policies: %w", err)
	}
	return nil
}

// Serve says, for as long as the returned file is open, that somebody takes pods out of their hold.
func (n Network) Serve(ctx context.Context) (*os.File, error) {
	if err := os.MkdirAll(n.dir(), 0o755); err != nil {
		return nil, err
	}
	return lockfile.Take(ctx, n.dir(servingFile), "policies of network "+n.Name+" (--network)")
}

// isServed reports whether somebody takes pods out of their hold.
func (n Network) isServed() bool {
	file, err := os.Open(n.dir(servingFile))
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }()

	return errors.Is(unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Forget removes what is on record of policies and pods: nobody looks after policies any more.
func (n Network) Forget() error {
	return n.Pool.Locked(func() error {
		return errors.Join(
			n.table().remove(),
			os.RemoveAll(n.dir(namespacesDir)),
			os.RemoveAll(string(n.ended())),
			os.RemoveAll(n.dir(servingFile)),
		)
	})
}
