package csiplugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"

	"github.com/trivet-node/trivet/internal/inotify"
)

// Run watches the directory until ctx ends. Sockets that are there already are registered first.
func (r *Registry) Run(ctx context.Context) error {
	if err := os.MkdirAll(r.cfg.Dir, 0o750); err != nil {
		return fmt.Errorf("plugin directory: %w", err)
	}

	// Nothing that was begun here outlives Run.
	defer r.running.Wait()
	defer r.close()

	watcher, err := inotify.Open(ctx, r.cfg.Log, func() { r.scan(ctx) })
	if err != nil && ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch plugin directory: %w", err)
	}
	defer watcher.Close()

	if err := watcher.Add(r.cfg.Dir); err != nil {
		return fmt.Errorf("watch plugin directory %s: %w", r.cfg.Dir, err)
	}

	r.scan(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-watcher.Events:
			if !ok {
				return errors.New("watch of plugin directory ended")
			}

			r.event(ctx, event)

		case err := <-watcher.Errors:
			// An overflow of the kernel's queue: look at everything again.
			r.cfg.Log.Warn("plugin events were lost", "dir", r.cfg.Dir, "err", err)
			r.scan(ctx)
		}
	}
}

// event follows one change of the directory.
func (r *Registry) event(ctx context.Context, e fsnotify.Event) {
	switch {
	case e.Has(fsnotify.Create):
		r.appeared(ctx, e.Name)
	case e.Has(fsnotify.Remove), e.Has(fsnotify.Rename):
		r.vanished(ctx, e.Name)
	}
}

// scan compares the directory with what is known.
func (r *Registry) scan(ctx context.Context) {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		r.cfg.Log.Warn("cannot list plugins", "dir", r.cfg.Dir, "err", err)
		return
	}

	present := map[string]bool{}
	for _, e := range entries {
		path := filepath.Join(r.cfg.Dir, e.Name())
		present[path] = true
		if !r.knows(path) {
			r.appeared(ctx, path)
		}
	}

	for _, path := range r.absent(present) {
		r.vanished(ctx, path)
	}
}

// knows reports whether what is behind a socket is registered, or was tried.
func (r *Registry) knows(path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trying[path] != nil
}

// absent returns the sockets that are known but not present.
func (r *Registry) absent(present map[string]bool) []string {
	r.mu.Lock()
	defer r.mu.Unlock()

	var gone []string
	for path := range r.trying {
		if !present[path] {
			gone = append(gone, path)
		}
	}
	return gone
}

// appeared registers the driver behind a socket. A socket that was just made may not be served yet, so this
// repeats until the driver answers, the socket vanishes or ctx ends.
func (r *Registry) appeared(ctx context.Context, path string) {
	if !isSocket(path) {
		return
	}

	attempts := r.begin(ctx, path)
	r.running.Go(func() {
		for pause := range registerPauses.Attempts(attempts) {
			err := r.register(attempts, path)
			if gone, ok := errors.AsType[*vanishedError](err); ok && ctx.Err() == nil {
				r.withdraw(ctx, gone.driver)
			}
			if err == nil || attempts.Err() != nil {
				return
			}

			if errors.Is(err, errNotServed) {
				r.cfg.Log.Warn("plugin is not registered", "socket", path, "err", err)
				return
			}

			r.cfg.Log.Warn("plugin is not registered", "socket", path, "err", err, "retry", pause)
		}
	})
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeSocket != 0 && filepath.Base(path)[0] != '.'
}

// begin returns the context of the attempts to register what is behind a socket. It ends those of an earlier
// socket at the same path.
func (r *Registry) begin(ctx context.Context, path string) context.Context {
	attempts, cancel := context.WithCancel(ctx)

	r.mu.Lock()
	defer r.mu.Unlock()

	if earlier := r.trying[path]; earlier != nil {
		earlier()
	}
	r.trying[path] = cancel
	return attempts
}

// vanished drops the driver of a registration socket.
func (r *Registry) vanished(ctx context.Context, path string) {
	driver := r.drop(path)
	if driver == nil {
		return
	}

	driver.close()
	r.cfg.Log.Info("CSI driver is gone", "driver", driver.Name)
	r.cfg.Changed()
	r.running.Go(func() { r.withdraw(ctx, driver.Name) })
}

// drop forgets a socket, and returns the driver that was registered by it, nil if there is none.
func (r *Registry) drop(path string) *Driver {
	r.mu.Lock()
	defer r.mu.Unlock()

	if cancel := r.trying[path]; cancel != nil {
		cancel()
		delete(r.trying, path)
	}

	driver := r.drivers[r.sockets[path]]
	if driver != nil {
		delete(r.drivers, driver.Name)
	}
	delete(r.sockets, path)
	return driver
}
