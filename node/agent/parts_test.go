package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestOnePartThatFailsEndsAll(t *testing.T) {
	p := newParts(t.Context())
	ended := make(chan struct{})
	p.runSafe("other", func(ctx context.Context) {
		<-ctx.Done()
		close(ended)
	})

	p.run("broken", func(context.Context) error { return errors.New("disk on fire") })
	err := p.wait()
	p.end()
	<-ended
	if err == nil || !strings.Contains(err.Error(), "broken: disk on fire") {
		t.Errorf("error %v", err)
	}
}

func TestPartsThatEndBecauseTheyWereAskedToHaveNotFailed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := newParts(ctx)
	p.run("part", func(ctx context.Context) error {
		<-ctx.Done()
		return errors.New("connection closed")
	})
	cancel()
	if err := p.wait(); err != nil {
		t.Errorf("error %v", err)
	}
	p.end()
}

func TestAPartWaitsForWhatItComesAfter(t *testing.T) {
	happened := make(chan struct{})
	ran := make(chan bool, 1)
	part := after(happened, func(context.Context) { ran <- true })

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	part(ended)
	if len(ran) > 0 {
		t.Error("it ran before")
	}

	close(happened)
	part(t.Context())
	if len(ran) == 0 {
		t.Error("it did not run")
	}
}

func TestNoPartRunsUnlessAllCouldBeMade(t *testing.T) {
	p := newParts(t.Context())
	ran := make(chan string, 2)
	part := func(name string) {
		p.runSafe(name, func(context.Context) { ran <- name })
	}

	err := p.together(func() error {
		part("first")
		return errors.New("no second one")
	})
	if err == nil || len(p.held) > 0 {
		t.Errorf("error %v, %d parts are left", err, len(p.held))
	}

	err = p.together(func() error {
		part("alone")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if name := <-ran; name != "alone" {
		t.Errorf("%s ran, though not all could be made", name)
	}

	p.end()
}
