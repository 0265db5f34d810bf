package container

import (
	"context"
	"fmt"
	"sync"
)

// AwaitCreations returns when no creation is under way in a sandbox. One in a sandbox that is not ready any
// more is undone; what cannot be undone is listed by then, so that it is removed with its sandbox.
func (c *Service) AwaitCreations(ctx context.Context, sandboxID string) error {
	return c.pending.wait(ctx, sandboxID)
}

// pending counts the creations that are under way in each sandbox. The zero value is ready.
type pending struct {
	mu    sync.Mutex // guards all below
	count map[string]int

	// none are closed when the sandbox's last creation has ended.
	none map[string]chan struct{}
}

// begin counts a creation until done is called.
func (c *pending) begin(sandbox string) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count = map[string]int{}
		c.none = map[string]chan struct{}{}
	}
	c.count[sandbox]++
	if c.count[sandbox] == 1 {
		c.none[sandbox] = make(chan struct{})
	}
	return func() { c.end(sandbox) }
}

func (c *pending) end(sandbox string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[sandbox]--
	if c.count[sandbox] > 0 {
		return
	}
	close(c.none[sandbox])
	delete(c.count, sandbox)
	delete(c.none, sandbox)
}

// wait returns when no creation is under way in the sandbox, or ctx has ended.
func (c *pending) wait(ctx context.Context, sandbox string) error {
	c.mu.Lock()
	none := c.none[sandbox]
	c.mu.Unlock()
	if none == nil {
		return nil
	}

	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a container is still being created in pod sandbox %s: %w",
			sandbox, context.Cause(ctx))
	}
}
