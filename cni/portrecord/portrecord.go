// Package portrecord keeps on disk which host ports each attachment has. In nftables they are elements of the
// network's table, and gone when somebody flushes it; trivet-netd puts them back by these records.
//
// A record is written before the elements and removed before them, with the lock of the network's directory
// held: whoever finds a record with the lock held may add its elements.
package portrecord

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/internal/durable"
)

// Record says which host ports an attachment has.
type Record struct {
	Owner ipam.Owner     `json:"owner"`
	Ports []hostnat.Port `json:"ports"`
}

// Store is the directory of the records of one network.
type Store struct{ dir string }

// Of is the store beside the reservations of a pool.
func Of(pool *ipam.Pool) Store { return Store{dir: pool.PortsDir()} }

func (s Store) file(owner ipam.Owner) string {
	sum := sha256.Sum256([]byte(owner.String()))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16]))
}

// Write notes the host ports of an attachment.
func (s Store) Write(r Record) error {
	data, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(s.dir, 0o755)
	}
	if err == nil {
		err = durable.WriteVolatile(s.file(r.Owner), data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("note host ports of %s: %w", r.Owner, err)
	}
	return nil
}

// Remove forgets an attachment's host ports; none is success.
func (s Store) Remove(owner ipam.Owner) error {
	err := os.Remove(s.file(owner))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget host ports of %s: %w", owner, err)
	}
	return nil
}

// Has reports whether an attachment has a record.
func (s Store) Has(owner ipam.Owner) bool {
	_, err := os.Lstat(s.file(owner))
	return err == nil
}

// All lists the records. What cannot be read is left out: it says nothing that could be put back.
func (s Store) All() (all []Record, err error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}

	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		data, err := os.ReadFile(path)
		var r Record
		if err != nil || json.Unmarshal(data, &r) != nil || s.file(r.Owner) != path {
			continue
		}

		all = append(all, r)
	}

	return all, err
}

// Keep forgets all but valid attachments, and what is no record: CNI's GC.
func (s Store) Keep(valid func(ipam.Owner) bool) error {
	all, err := s.All()
	if err != nil {
		return err
	}

	due := map[string]bool{}
	for _, r := range all {
		due[s.file(r.Owner)] = valid(r.Owner)
	}

	files, err := filepath.Glob(filepath.Join(s.dir, "*"))
	for _, file := range files {
		if !due[file] {
			err = errors.Join(err, os.Remove(file))
		}
	}

	return err
}
