package container

import (
	"context"
	"fmt"
	"sync"
)

// creations counts the creations that are in flight in each sandbox. The zero value is ready.
type creations struct {
	mu    sync.Mutex // guards all below
	count map[string]int
	none  map[string]chan struct{} // closed when the sandbox's last one has ended
}

// begin counts a creation until done is called.
func (c *creations) begin(sandbox string) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count, c.none = map[string]int{}, map[string]chan struct{}{}
	}
	if c.count[sandbox]++; c.count[sandbox] == 1 {
		c.none[sandbox] = make(chan struct{})
	}
	return func() { c.end(sandbox) }
}

func (c *creations) end(sandbox string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count[sandbox]--; c.count[sandbox] > 0 {
		return
	}
	close(c.none[sandbox])
	delete(c.count, sandbox)
	delete(c.none, sandbox)
}

// wait returns when no creation is in flight in the sandbox, or ctx has ended.
func (c *creations) wait(ctx context.Context, sandbox string) error {
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
		return fmt.Errorf("a container is still being created in pod sandbox %s: %w", sandbox, context.Cause(ctx))
	}
}
