package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// parts are what runs of the agent, side by side. When one fails, all end.
type parts struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	running sync.WaitGroup

	// held are the parts that are not started yet; nil unless together is at work.
	held []func()
}

func newParts(ctx context.Context) *parts {
	p := &parts{}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	return p
}

// run runs a part until it returns, which it does when the context ends.
func (p *parts) run(name string, part func(context.Context) error) {
	body := func() {
		if err := part(p.ctx); err != nil && p.ctx.Err() == nil {
			p.cancel(fmt.Errorf("%s: %w", name, err))
		}
	}

	if p.held != nil {
		p.held = append(p.held, body)
		return
	}
	p.running.Go(body)
}

// together starts the parts that build runs when all of them are made, and none of them if it fails: a node
// that cannot work must not appear in the cluster.
func (p *parts) together(build func() error) error {
	p.held = []func(){}
	err := build()
	held := p.held
	p.held = nil
	if err != nil {
		return err
	}

	for _, body := range held {
		p.running.Go(body)
	}

	return nil
}

// runSafe runs a part that does not fail.
func (p *parts) runSafe(name string, part func(context.Context)) {
	p.run(name, func(ctx context.Context) error {
		part(ctx)
		return nil
	})
}

// wait waits for the end and returns the error of the part that failed, nil if none did.
func (p *parts) wait() error {
	<-p.ctx.Done()
	if err := context.Cause(p.ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// end ends all parts and waits for them.
func (p *parts) end() {
	p.cancel(nil)
	p.running.Wait()
}

// after runs a part once something has happened, and not at all when the context ends before.
func after(happened <-chan struct{}, part func(context.Context)) func(context.Context) {
	return func(ctx context.Context) {
		select {
		case <-happened:
			part(ctx)
		case <-ctx.Done():
		}
	}
}
