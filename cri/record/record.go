// Package record keeps the records of all objects of one kind, such as containers: in memory, and each as a
// JSON file. The files are not synced to the disk: they are for a boot-scoped directory (tmpfs). Every change
// is shown to one observer, in the order of the changes.
package record

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/trivet-node/trivet/internal/durable"
)

// ErrNotFound is matched by the error for an ID that no record has, and for a prefix of several.
var ErrNotFound = errors.New("not found")

// Config says where the records of an Index are and what is done with them.
type Config[R any] struct {
	// Dir is the directory of the files, DIR/ID.json. It is made if need be.
	Dir string

	// Kind names the objects in errors and log lines, such as "container".
	Kind string

	// Decode completes a record that was read from its file, with fields that JSON does not hold. A record
	// for which it fails is kept as it is. Optional.
	Decode func(*R) error

	// Changed is called after every change, with the index locked: it must be quick and must not call the
	// index. before is nil for a new record, after is nil for one that is gone. Optional.
	Changed func(before, after *R)

	Log *slog.Logger
}

// Index is all records of one kind by ID. Records are handed out as copies. It may be used by many
// goroutines.
type Index[R any] struct {
	cfg   Config[R]
	files *durable.Store[R]

	// mu guards all. It is held while a file is written, so that files and memory change in the same order.
	mu  sync.RWMutex
	all map[string]R
}

// Open reads the files. A file that cannot be read is set aside and logged; it does not keep the others
// from being used. Changed is not called for what is read.
func Open[R any](cfg Config[R]) (*Index[R], error) {
	files, err := durable.OpenStore[R](cfg.Dir, true)
	if err != nil {
		return nil, err
	}

	all, torn, err := files.List()
	if err != nil {
		return nil, fmt.Errorf("read records of kind %s: %w", cfg.Kind, err)
	}

	for _, t := range torn {
		cfg.Log.Warn("record is set aside",
			"kind", cfg.Kind, "record", t.Name, "moved", t.Moved, "err", t.Err)
	}

	if cfg.Decode != nil {
		for id, r := range all {
			if err := cfg.Decode(&r); err != nil {
				cfg.Log.Warn("record has a broken part", "kind", cfg.Kind, "record", id, "err", err)
			}

			all[id] = r
		}
	}

	return &Index[R]{cfg: cfg, files: files, all: all}, nil
}

// Get returns the record of an ID or of a prefix that only one ID has.
func (x *Index[R]) Get(id string) (R, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()

	if r, ok := x.all[id]; ok {
		return r, nil
	}

	var found []string
	for full := range x.all {
		if id != "" && strings.HasPrefix(full, id) {
			found = append(found, full)
		}
	}

	if len(found) != 1 {
		var none R
		return none, x.notFound(id)
	}

	return x.all[found[0]], nil
}

// Has reports whether there is a record of this whole ID.
func (x *Index[R]) Has(id string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, ok := x.all[id]
	return ok
}

// List returns all records, in no order.
func (x *Index[R]) List() []R {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all := make([]R, 0, len(x.all))
	for _, r := range x.all {
		all = append(all, r)
	}
	return all
}

// Put adds or replaces a record. On an error nothing has changed.
func (x *Index[R]) Put(id string, r R) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.files.Put(id, r); err != nil {
		return x.notWritten(id, err)
	}
	x.replace(id, r)
	return nil
}

// Change edits a record by its whole ID. edit reports whether it has changed anything; if not, nothing is
// written. It records what has happened already, so the record is changed in memory even if the error says
// that its file is not.
func (x *Index[R]) Change(id string, edit func(*R) bool) (R, error) {
	x.mu.Lock()
	defer x.mu.Unlock()

	r, ok := x.all[id]
	if !ok {
		return r, x.notFound(id)
	}
	if !edit(&r) {
		return r, nil
	}

	err := x.files.Put(id, r)
	x.replace(id, r)
	if err != nil {
		return r, x.notWritten(id, err)
	}

	return r, nil
}

// Delete removes a record by its whole ID. A record that is not there is success.
func (x *Index[R]) Delete(id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.files.Delete(id); err != nil {
		return fmt.Errorf("delete record of %s %s: %w", x.cfg.Kind, id, err)
	}
	before, ok := x.all[id]
	delete(x.all, id)
	if ok && x.cfg.Changed != nil {
		x.cfg.Changed(&before, nil)
	}
	return nil
}

func (x *Index[R]) replace(id string, r R) {
	before, ok := x.all[id]
	x.all[id] = r
	switch {
	case x.cfg.Changed == nil:
	case ok:
		x.cfg.Changed(&before, &r)
	default:
		x.cfg.Changed(nil, &r)
	}
}

func (x *Index[R]) notFound(id string) error {
	return fmt.Errorf("%s %s: %w", x.cfg.Kind, id, ErrNotFound)
}

func (x *Index[R]) notWritten(id string, err error) error {
	return fmt.Errorf("record %s %s: %w", x.cfg.Kind, id, err)
}

// NewID returns a random ID in the form that clients of CRI expect: 64 hexadecimal digits.
func NewID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
