package hostport

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
)

// record says which host ports an attachment has. It is JSON on the disk.
type record struct {
	Owner ipam.Owner     `json:"owner"`
	Ports []hostnat.Port `json:"ports"`
}

// maxRecord bounds a record: ADD writes some 100 bytes for each port. What is larger is found by lists.
const maxRecord = 4 << 20

// parse reads a record, of which each port has to be one that a table can hold.
func parse(data []byte) (r record, ok bool) {
	if json.Unmarshal(data, &r) != nil {
		return r, false
	}
	return r, !slices.ContainsFunc(r.Ports, func(p hostnat.Port) bool { return !p.IsValid() })
}

// store is the directory of the records of one network, in which suffix ends their names. They are written
// and ended with the lock of the network's pool held.
type store struct{ dir, suffix string }

func storeOf(pool *ipam.Pool) store { return store{dir: pool.PortsDir()} }

// ended has the records of what is withdrawn, but for tracked connections. Nobody restores anything from
// them.
func (s store) ended() store {
	s.suffix = ".ended"
	return s
}

func (s store) file(owner ipam.Owner) string {
	sum := sha256.Sum256([]byte(owner.String()))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16])+s.suffix)
}

// write records the host ports of an attachment.
func (s store) write(r record) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(s.dir, 0o755)
	}
	if err == nil {
		err = durable.WriteVolatile(s.file(r.Owner), data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("record host ports of %s: %w", r.Owner, err)
	}
	return nil
}

// end makes the record of an attachment an ended one; none is success.
func (s store) end(owner ipam.Owner) error {
	err := os.Rename(s.file(owner), s.ended().file(owner))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("end record of the host ports of %s: %w", owner, err)
	}
	return nil
}

// remove removes the record of an attachment; none is success.
func (s store) remove(owner ipam.Owner) error {
	err := os.Remove(s.file(owner))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove record of the host ports of %s: %w", owner, err)
	}
	return nil
}

// has reports whether an attachment has a record, which may be one that cannot be read.
func (s store) has(owner ipam.Owner) bool {
	_, err := os.Lstat(s.file(owner))
	return err == nil
}

// read returns the record of an attachment; ok is false if there is none, or none that can be read.
func (s store) read(owner ipam.Owner) (r record, ok bool) {
	if r, ok = s.readFile(s.file(owner)); !ok || r.Owner != owner {
		return record{}, false
	}
	return r, true
}

// readFile reads a record from a file that has its name.
func (s store) readFile(path string) (r record, ok bool) {
	data, err := boundedfile.Read(path, maxRecord)
	if err != nil {
		return r, false
	}
	if r, ok = parse(data); !ok || s.file(r.Owner) != path {
		return record{}, false
	}
	return r, true
}

// all lists the records. What cannot be read is left out: it says nothing that could be restored.
func (s store) all() (all []record, err error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}

	for _, e := range entries {
		if r, ok := s.readFile(filepath.Join(s.dir, e.Name())); ok {
			all = append(all, r)
		}
	}

	return all, err
}

// keep ends the records of all but valid attachments, and removes what is not a record.
func (s store) keep(valid func(ipam.Owner) bool) error {
	all, err := s.all()
	if err != nil {
		return err
	}

	due := map[string]bool{}
	for _, r := range all {
		due[s.file(r.Owner)] = true
		if !valid(r.Owner) {
			err = errors.Join(err, s.end(r.Owner))
		}
	}

	ended, listErr := s.ended().all()
	if err = errors.Join(err, listErr); err != nil {
		return err
	}
	for _, r := range ended {
		due[s.ended().file(r.Owner)] = true
	}

	files, err := filepath.Glob(filepath.Join(s.dir, "*"))
	for _, file := range files {
		if !due[file] {
			err = errors.Join(err, os.Remove(file))
		}
	}

	return err
}
