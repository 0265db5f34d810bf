// Package volume keeps the volumes of one node: it makes, grows, lists and deletes them, puts them on the
// paths where pods find them, and never promises more bytes than the disk has. It knows no gRPC and no
// Kubernetes; how bytes are held and sizes enforced is a Backend's matter.
//
// Each volume is one small record on disk. The record says what is about to happen before it happens (making,
// ready, deleting), so a process that was killed at any instruction is put right by the next start: only a
// ready volume is ever acknowledged, and only what a record calls unfinished is ever removed. Something in a
// backend that no record knows is reported and left alone.
package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/trivet-node/trivet/csi/mount"
)

// What a caller may branch on.
var (
	ErrInvalid   = errors.New("invalid request")
	ErrNotFound  = errors.New("no such volume")
	ErrConflict  = errors.New("exists with other properties")
	ErrFull      = errors.New("not enough space")
	ErrSize      = errors.New("size is out of range")
	ErrInUse     = errors.New("volume is in use")
	ErrNotStaged = errors.New("volume is not staged")
	ErrDamaged   = errors.New("volume is damaged")

	// ErrUnavailable is what heals without a hand: it is looked at again and again.
	ErrUnavailable = errors.New("not available now")
)

// Access is how pods see a volume.
type Access string

// The kinds of access.
const (
	Filesystem Access = "mount" // a directory
	Block      Access = "block" // a raw device
)

// Spec is what a volume is. All sizes are bytes.
type Spec struct {
	ID      string `json:"id"`
	Name    string `json:"name"` // the name it was asked for by; the ID follows from it
	Size    int64  `json:"size"`
	Backend string `json:"backend"`
	Access  Access `json:"access"`
	FSType  string `json:"fsType,omitempty"`
	NoCOW   bool   `json:"noCow,omitempty"`
}

// Volume is a ready volume.
type Volume struct {
	Spec
	Created time.Time
	Damage  string // why it cannot be used, if so
	Trouble string // what is wrong with the backend that holds it, if so
	Staged  bool
}

type phase string

const (
	making   phase = "making"
	ready    phase = "ready"
	deleting phase = "deleting"
)

var phases = []phase{making, ready, deleting}

// record is the durable state of a volume.
type record struct {
	Version int   `json:"version"`
	Phase   phase `json:"phase"`
	Spec    Spec  `json:"spec"`
	Origin
	Created time.Time `json:"created"`
	damage  error
}

// Origin is what a backend wants to be reminded of after a restart.
type Origin struct {
	Token uint64 `json:"token,omitempty"`
	Pool  string `json:"pool,omitempty"` // what holds the volume; "": not known, or the same for all
}

const recordVersion = 1

// staging is the boot-scoped state of a volume that is in use.
type staging struct {
	Path         string   `json:"path"`
	Targets      []string `json:"targets,omitempty"`
	SingleWriter bool     `json:"singleWriter,omitempty"`
}

// Backend holds the bytes of volumes and enforces their sizes. All methods may be repeated; calls for one ID
// never overlap.
type Backend interface {
	Maker
	Attacher

	// Check tells what is wrong with what holds the volumes, nil if nothing is. It is called every few
	// seconds. With idle set no volume is in use, so that it may mend what can only be mended then.
	Check(idle bool) error
}

// Maker is the half of a Backend that makes volumes.
type Maker interface {
	// Complete fills what the request left open and refuses what the backend cannot do, those mount options
	// among it, with ErrInvalid. It may raise the size.
	Complete(s *Spec, options []string) error
	// List names all volumes that the backend holds. Empty reports whether one holds no data for certain;
	// os.ErrNotExist if it is not there.
	List() ([]string, error)
	Empty(id string) (bool, error)
	// Create makes the volume anew, replacing what an interrupted Create left.
	Create(Spec) (Origin, error)
	// Recover makes an acknowledged volume usable after a restart; ErrDamaged when its content is not there.
	// It returns the origin that the volume's record is to have, and writes nothing where all is as it should
	// be.
	Recover(Spec, Origin) (Origin, error)
	// Destroy deletes the volume; ErrInUse if it can tell that somebody uses it. Commit makes all finished
	// destroys survive a power loss, and is called when all volumes are recovered.
	Destroy(id string) error
	Commit() error
	// Grow makes the volume as large as the Spec says. nodeStep reports that GrowAttached must follow where
	// the volume is attached.
	Grow(Spec) (nodeStep bool, err error)
	// Space tells what the backend can promise, given what it has promised.
	Space(Promised) (Space, error)
}

// Attacher is the half of a Backend that makes volumes visible.
type Attacher interface {
	// Mount returns a mount of the volume's root directory that is nowhere attached yet.
	Mount(Spec, mount.Options) (*mount.Tree, error)
	// Device attaches a raw block volume, or finds it attached, and returns its device. Release detaches it.
	Device(Spec) (*os.File, error)
	Attached(id string) (bool, error)
	Release(id string) error
	// Enforce makes the size hold for what a pod has done to an attached volume since the last call, if that
	// went past the limit.
	Enforce(Spec) error
	// GrowAttached finishes the growth of an attached volume. root is its open root directory, nil for raw
	// block.
	GrowAttached(s Spec, root *os.File) error
	// Usage tells what is used; root as above.
	Usage(s Spec, root *os.File) (Usage, error)
}

// Promised is what a backend's volumes may grow to.
type Promised struct {
	Bytes int64
	Count int64
	Specs func() []Spec // each of them; costs time where there are thousands
}

// Space is what a backend can promise to volumes.
type Space struct {
	Limit     int64 // bytes to promise in all
	Unwritten int64 // bytes promised to volumes that do not yet occupy the disk below
}

// Usage of a volume. Inode counts are zero where the file system has no fixed number of them.
type Usage struct {
	Total, Used, Available                   int64
	InodesTotal, InodesUsed, InodesAvailable int64
}

var (
	validID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,44}$`)
	plainID = regexp.MustCompile(`^pvc-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// ID derives a volume's ID from its name, so that a repeated request finds the same volume without a lookup.
// The names that Kubernetes gives (pvc-UID) stay readable; all others are hashed.
func ID(name string) string {
	if plainID.MatchString(name) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "vol-" + hex.EncodeToString(sum[:16])
}

// CheckID refuses an ID that this package never gave out, before it gets near a path.
func CheckID(id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("%w: volume id %q", ErrInvalid, id)
	}
	return nil
}
