// Package volume keeps the volumes of one node and their records: it creates, grows, lists and deletes them,
// and never promises more bytes than the disk has. It knows no gRPC and no Kubernetes. How bytes are kept and
// sizes enforced is decided by a Backend; putting volumes on the paths of pods is done by package publish.
//
// Each volume has one small record on disk. It says what is about to happen before it happens (making, ready,
// deleting), so that the next start puts right what a process left that was killed at any instruction: only a
// ready volume is ever acknowledged, and only what a record calls unfinished is ever removed. What a backend
// holds without a record is reported and left alone.
package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/trivet-node/trivet/csi/space"
)

// Errors that callers branch on.
var (
	ErrInvalid   = errors.New("invalid request")
	ErrNotFound  = errors.New("no such volume")
	ErrConflict  = errors.New("exists with other properties")
	ErrFull      = errors.New("not enough space")
	ErrSize      = errors.New("size is out of range")
	ErrInUse     = errors.New("volume is in use")
	ErrNotStaged = errors.New("volume is not staged")
	ErrDamaged   = errors.New("volume is damaged")

	// ErrLost is a damaged volume whose content is not where it was, while what holds it works.
	ErrLost = fmt.Errorf("%w: its content is gone", ErrDamaged)

	// ErrKey is an encrypted volume without its key.
	ErrKey = errors.New("volume is locked")

	// ErrNotAttached is for orchestrators that attach volumes before they use them.
	ErrNotAttached = errors.New("volume is not attached")

	// ErrUnavailable is a failure that ends without anybody's help: it is tried again periodically.
	ErrUnavailable = errors.New("not available now")
)

// Access is how pods see a volume.
type Access string

const (
	// Filesystem is access to a directory.
	Filesystem Access = "mount"

	// Block is access to a raw device.
	Block Access = "block"
)

// Encryption is how the content of a volume is encrypted; "": it is not.
type Encryption string

// Fscrypt encrypts the directory that is the volume's root, see package fscrypt.
const Fscrypt Encryption = "fscrypt"

// SecretKey is the entry of a Secret that keys of volumes follow from.
const SecretKey = "encryptionKey"

// Spec is what a volume is. It is part of the volume's record.
type Spec struct {
	ID      string `json:"id"`
	Name    string `json:"name"` // the one that it was requested by; the ID follows from it
	Size    int64  `json:"size"` // bytes
	Backend string `json:"backend"`
	Access  Access `json:"access"`
	FSType  string `json:"fsType,omitempty"`
	NoCOW   bool   `json:"noCow,omitempty"` // blocks are overwritten in place

	// Encryption is with a key of which one half comes whenever the volume is staged; see package keyfile.
	Encryption Encryption `json:"encryption,omitempty"`

	// Reserve has all bytes of the volume taken from the disk before they are written.
	Reserve bool `json:"reserve,omitempty"`

	// Limits are in force while the volume is in use.
	Limits Limits `json:"limits,omitzero"`

	// Pooled says that the volume is an image although its backend has others that are none.
	Pooled bool `json:"pooled,omitempty"`

	// Source is the ID of the volume or snapshot whose content this one began with; "": it began empty.
	Source string `json:"source,omitempty"`

	// Imported names the content that was imported into this one; "": none was.
	Imported string `json:"imported,omitempty"`

	// Snapshot says that this is the content of Source at a moment, which nobody can use or change.
	Snapshot bool `json:"snapshot,omitempty"`

	// Keeps is how many bytes of each volume, by ID, cannot be freed because this one has them, too.
	Keeps map[string]int64 `json:"keeps,omitempty"`
}

// Limits are how much pods may read from and write to a volume in a second, in bytes and in operations. 0 is
// as much as the disk can.
type Limits struct {
	ReadBytes  int64 `json:"readBytes,omitempty"`
	WriteBytes int64 `json:"writeBytes,omitempty"`
	ReadOps    int64 `json:"readOps,omitempty"`
	WriteOps   int64 `json:"writeOps,omitempty"`
}

// need is what has to be there for the volume. A snapshot has only what it keeps of others.
func (s Spec) need() space.Need {
	n := space.Need{Backend: s.Backend, Keeps: s.Keeps}
	if !s.Snapshot {
		n.Bytes = max(s.Size, 0)
	}
	return n
}

// Volume is a ready volume.
type Volume struct {
	Spec
	Created time.Time

	// Damage is why the volume cannot be used, nil if it can.
	Damage error

	// Trouble is what is wrong with the backend that holds the volume, nil if nothing is.
	Trouble error
}

var (
	validID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,44}$`)
	plainID = regexp.MustCompile(`^(pvc|snapshot)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// ID returns the ID of the volume of that name, so that a repeated request finds the same volume without a
// look-up. The names that Kubernetes gives (pvc-UID) stay readable, all others are hashed.
func ID(name string) string {
	return idOf(name, "pvc-", "vol-")
}

// SnapshotID is ID for snapshots.
func SnapshotID(name string) string { return idOf(name, "snapshot-", "snap-") }

// IsSnapshotID reports whether an ID is one that SnapshotID returns, and ID does not.
func IsSnapshotID(id string) bool {
	return strings.HasPrefix(id, "snapshot-") || strings.HasPrefix(id, "snap-")
}

// idOf returns a name that Kubernetes gave as it is, if it has that prefix, and the hash of any other.
func idOf(name, plain, hashed string) string {
	if strings.HasPrefix(name, plain) && plainID.MatchString(name) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return hashed + hex.EncodeToString(sum[:16])
}

// CheckID returns ErrInvalid for what cannot be the ID of a volume. It is called before an ID becomes part of
// a path.
func CheckID(id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("%w: volume id %q", ErrInvalid, id)
	}
	return nil
}
