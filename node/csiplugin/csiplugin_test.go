package csiplugin

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
)

// publisher records what the cluster is told.
type publisher struct {
	calls []string

	// failing is how many removals fail first.
	failing int

	// added is called at the end of Add, if it is set.
	added func()
}

func (p *publisher) Add(_ context.Context, d Info) error {
	p.calls = append(p.calls, "add "+d.Name+" "+d.NodeID)
	if p.added != nil {
		p.added()
	}
	return nil
}

func (p *publisher) Remove(_ context.Context, name string) error {
	if p.failing > 0 {
		p.failing--
		return errors.New("the API server is away")
	}
	p.calls = append(p.calls, "remove "+name)
	return nil
}

func TestADriverIsWithdrawnOnceTheClusterCanBeTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &publisher{failing: 3}
		New(Config{Publisher: p, Log: slog.New(slog.DiscardHandler)}).withdraw(t.Context(), "d")
		if !slices.Equal(p.calls, []string{"remove d"}) {
			t.Error("it is not withdrawn")
		}
	})
}

func TestADriverThatIsBackIsNotWithdrawn(t *testing.T) {
	p := &publisher{}
	r := New(Config{Publisher: p, Log: slog.New(slog.DiscardHandler)})
	r.drivers["d"] = &Driver{}
	r.withdraw(t.Context(), "d")
	if len(p.calls) != 0 {
		t.Error("a driver that works is withdrawn")
	}
}
