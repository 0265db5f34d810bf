package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// commits makes changes of a directory durable, many at a time: a sync waits for the disk, and the sync of a
// directory covers everything that was done in it before. Changes that come while a batch is being synced
// join the next batch, which the one who opened it syncs for all of them.
type commits struct {
	dir string

	// mu guards next; never held during I/O.
	mu   sync.Mutex
	next *batch // still open for changes; nil when no change is waiting

	// turn held while a batch is being synced.
	turn sync.Mutex
}

// batch is the changes that share a sync.
type batch struct {
	changes []*change
	synced  chan struct{} // closed when they are
}

// change is one file that gets the content of a temporary file or, if that is nil, is removed.
type change struct {
	path string
	temp *os.File
	err  error
}

// put replaces path with data, as WriteFile does.
func (c *commits) put(path string, data []byte) error {
	f, err := writeTemp(path, data, 0o600)
	if err != nil {
		return err
	}
	return c.do(&change{path: path, temp: f})
}

// remove removes path. A file that is not there is a success.
func (c *commits) remove(path string) error { return c.do(&change{path: path}) }

// do returns when the change is durable.
func (c *commits) do(ch *change) error {
	b, first := c.join(ch)
	if first {
		c.turn.Lock()
		c.sync(c.complete())
		c.turn.Unlock()
		close(b.synced)
	}

	// All go on at once: none waits for another one to be told.
	<-b.synced
	return ch.err
}

// join adds a change to the next batch.
func (c *commits) join(ch *change) (b *batch, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if first = c.next == nil; first {
		c.next = &batch{synced: make(chan struct{})}
	}
	c.next.changes = append(c.next.changes, ch)
	return c.next, first
}

// complete returns the changes of the next batch, which takes no more of them.
func (c *commits) complete() []*change {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.next
	c.next = nil
	return b.changes
}

// sync applies all changes and syncs the directory. On a journaling file system the first sync of a file
// writes the content of the others as well, if that is on its way to the disk already.
func (c *commits) sync(changes []*change) {
	if len(changes) > 1 {
		for _, ch := range changes {
			if ch.temp != nil {
				// Only a hint: an error shows at the sync that follows.
				_ = unix.SyncFileRange(int(ch.temp.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
			}
		}
	}

	var group sync.WaitGroup
	for _, ch := range changes {
		group.Go(func() { ch.err = ch.apply() })
	}

	group.Wait()
	if err := SyncDir(c.dir); err != nil {
		for _, ch := range changes {
			ch.err = errors.Join(ch.err, err)
		}
	}
}

// apply makes the change in the directory, which is synced later.
func (ch *change) apply() error {
	if ch.temp == nil {
		if err := os.Remove(ch.path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}

		return nil
	}

	err := ch.temp.Sync()
	err = errors.Join(err, ch.temp.Close())
	if err == nil {
		err = os.Rename(ch.temp.Name(), ch.path)
	}

	if err != nil {
		os.Remove(ch.temp.Name())
		return fmt.Errorf("write %s: %w", ch.path, err)
	}

	return nil
}
