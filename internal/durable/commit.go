package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// commits makes changes of a directory durable, many at once: a sync waits for the disk, and one of a
// directory covers all that was done in it before. Whoever comes while a batch is being synced joins the next
// one, and the first of a batch who gets to it does the work for all.
type commits struct {
	dir string

	mu   sync.Mutex // guards next; never held during I/O
	next *batch     // takes changes; nil when none is waiting

	turn sync.Mutex // held while a batch is synced
}

type batch struct {
	changes []*change
	done    bool // guarded by turn
}

// change is one file that is to be there with new content, or, without a temporary file, not to be there.
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

// remove deletes path, as Remove does.
func (c *commits) remove(path string) error { return c.do(&change{path: path}) }

func (c *commits) do(ch *change) error {
	c.mu.Lock()
	if c.next == nil {
		c.next = &batch{}
	}

	b := c.next
	b.changes = append(b.changes, ch)
	c.mu.Unlock()

	c.turn.Lock()
	defer c.turn.Unlock()

	if !b.done {
		c.mu.Lock()

		// b is complete: nobody joins any more
		c.next = nil
		c.mu.Unlock()
		c.sync(b.changes)
		b.done = true
	}

	return ch.err
}

// sync does all changes. On a journaling file system the first fsync takes the others' content along, once it
// is on its way to the disk.
func (c *commits) sync(changes []*change) {
	if len(changes) > 1 {
		for _, ch := range changes {
			if ch.temp != nil {
				// a hint; fsync follows
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

// apply brings the change into the directory, which has yet to be synced.
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
