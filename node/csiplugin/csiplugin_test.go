package csiplugin

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
)

// publisher cannot remove a driver for some times.
type publisher struct {
	fails, removals int
}

func (p *publisher) Add(context.Context, Info) error { return nil }

func (p *publisher) Remove(context.Context, string) error {
	if p.fails > 0 {
		p.fails--
		return errors.New("the API server is away")
	}
	p.removals++
	return nil
}

func TestADriverIsWithdrawnOnceTheClusterCanBeTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &publisher{fails: 3}
		New(Config{Publisher: p, Log: slog.New(slog.DiscardHandler)}).withdraw(t.Context(), "d")
		if p.removals != 1 {
			t.Error("it is not withdrawn")
		}
	})
}

func TestADriverThatIsBackIsNotWithdrawn(t *testing.T) {
	p := &publisher{}
	r := New(Config{Publisher: p, Log: slog.New(slog.DiscardHandler)})
	r.drivers["d"] = &Driver{}
	r.withdraw(t.Context(), "d")
	if p.removals != 0 {
		t.Error("a driver that works is withdrawn")
	}
}
