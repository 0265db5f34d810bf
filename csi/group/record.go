package group

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
)

// phase is how far a group has come.
type phase string

const (
	making   phase = "making"
	ready    phase = "ready"
	deleting phase = "deleting"
)

var phases = []phase{making, ready, deleting}

// record is the durable state of a group.
type record struct {
	Version int      `json:"version"`
	Phase   phase    `json:"phase"`
	Name    string   `json:"name"`    // the one that it was requested by; the ID follows from it
	Sources []string `json:"sources"` // IDs of the volumes, sorted; those of the snapshots follow from them
}

// Recorded is a group as its record says.
type Recorded struct {
	Snapshots []string // IDs
	Ready     bool     // it is neither being made nor deleted

	// Err is why this version cannot use the record.
	Err error
}

// Read reads the records in a directory beside Groups that work on it, or without them, by the groups' IDs.
// It changes nothing.
func Read(dir string) (map[string]Recorded, []durable.Unreadable, error) {
	records, unreadable, err := durable.Peek[record](dir)
	all := make(map[string]Recorded, len(records))
	for id, r := range records {
		all[id] = Recorded{Snapshots: r.snapshots(), Ready: r.Phase == ready, Err: r.check(id)}
	}
	return all, unreadable, err
}

// IsID reports whether an ID is one that ID returns; those of volumes and snapshots are not.
func IsID(id string) bool { return plainID.MatchString(id) || hashedID.MatchString(id) }

const (
	// recordVersion is what this version writes.
	recordVersion = 1

	maxName = 128
)

// newRecord returns the first record of a group, or volume.ErrInvalid.
func newRecord(name string, sources []string) (record, error) {
	sources = slices.Sorted(slices.Values(sources))
	r := record{
		Version: recordVersion,
		Phase:   making,
		Name:    name,
		Sources: sources,
	}

	switch {
	case name == "" || len(name) > maxName:
		return r, fmt.Errorf("%w: name of a group snapshot %q", volume.ErrInvalid, name)
	case len(sources) == 0 || len(sources) > Most:
		return r, fmt.Errorf("%w: a group snapshot is of 1 to %d volumes, requested were %d",
			volume.ErrInvalid, Most, len(sources))
	case len(slices.Compact(slices.Clone(sources))) < len(sources):
		return r, fmt.Errorf("%w: a group snapshot has no volume twice, requested was %q",
			volume.ErrInvalid, sources)
	}

	for _, source := range sources {
		if volume.CheckID(source) != nil || volume.IsSnapshotID(source) {
			return r, fmt.Errorf("%w: source volume %q", volume.ErrNotFound, source)
		}
	}

	return r, nil
}

// check returns volume.ErrDamaged for a record that is not what this version writes.
func (r record) check(id string) error {
	_, err := newRecord(r.Name, r.Sources)
	known := r.Version == recordVersion && slices.Contains(phases, r.Phase)
	if err == nil && known && ID(r.Name) == id {
		return nil
	}
	return fmt.Errorf("%w: the record of group snapshot %s has version %d, phase %q and name %q",
		volume.ErrDamaged, id, r.Version, r.Phase, r.Name)
}

// requests ask for the snapshots.
func (r record) requests() []volume.Request {
	var requests []volume.Request
	for _, source := range r.Sources {
		requests = append(requests, volume.Request{
			Name:     ID(r.Name) + "/" + source,
			Source:   source,
			Snapshot: true,
		})
	}
	return requests
}

// snapshots returns the IDs of the snapshots.
func (r record) snapshots() []string {
	var ids []string
	for _, request := range r.requests() {
		ids = append(ids, volume.SnapshotID(request.Name))
	}
	return ids
}

var (
	plainID  = regexp.MustCompile(`^groupsnapshot-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	hashedID = regexp.MustCompile(`^group-[0-9a-f]{32}$`)
)

// ID returns the ID of the group of that name, so that a repeated request finds the same group. The names
// that Kubernetes gives (groupsnapshot-UID) stay readable, all others are hashed.
func ID(name string) string {
	if plainID.MatchString(name) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "group-" + hex.EncodeToString(sum[:16])
}
