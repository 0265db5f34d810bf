package exit_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/cri/exit"
	"github.com/trivet-node/trivet/cri/monitor"
)

// fake is all that a Router knows.
type fake struct {
	processes             []string
	containers, sandboxes map[string]bool
	exits                 chan monitor.Exit

	deleted, ended, initEnded []string
}

func (f *fake) Exits() <-chan monitor.Exit { return f.exits }

func (f *fake) List() []monitor.Status {
	var all []monitor.Status
	for _, id := range f.processes {
		all = append(all, monitor.Status{Container: monitor.Container{ID: id}})
	}
	return all
}

func (f *fake) Delete(_ context.Context, id string) error {
	f.deleted = append(f.deleted, id)
	return nil
}

type containers struct{ *fake }

func (c containers) Ended(e monitor.Exit) { c.ended = append(c.ended, e.ID) }
func (c containers) Known(id string) bool { return c.fake.containers[id] }

type sandboxes struct{ *fake }

func (s sandboxes) Known(id string) bool { return s.fake.sandboxes[id] }

func (s sandboxes) InitEnded(id string) (bool, error) {
	s.initEnded = append(s.initEnded, id)
	return true, nil
}

func router(f *fake) *exit.Router {
	return exit.New(exit.Config{
		Monitor:    f,
		Containers: containers{f},
		Sandboxes:  sandboxes{f},
		Log:        slog.New(slog.DiscardHandler),
	})
}

func TestExitsComeToTheirContainersAndSandboxes(t *testing.T) {
	f := &fake{exits: make(chan monitor.Exit, 3)}
	for _, id := range []string{"a", "pause-s", "b"} {
		f.exits <- monitor.Exit{ID: id}
	}
	close(f.exits)
	if err := router(f).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.ended, []string{"a", "b"}) || !slices.Equal(f.initEnded, []string{"s"}) {
		t.Errorf("containers %v, sandboxes %v", f.ended, f.initEnded)
	}
}

func TestRouterEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := router(&fake{}).Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestOnlyProcessesThatNoRecordNamesAreEnded(t *testing.T) {
	f := &fake{
		processes:  []string{"a", "lost", "pause-s", "pause-gone"},
		containers: map[string]bool{"a": true},
		sandboxes:  map[string]bool{"s": true},
	}
	router(f).RemoveOrphans(t.Context())
	if want := []string{"lost", "pause-gone"}; !slices.Equal(f.deleted, want) {
		t.Errorf("deleted %v, want %v", f.deleted, want)
	}
}
