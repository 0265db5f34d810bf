// Package archive is a volume as a stream: to be kept elsewhere, or made again on another node. The stream is
// a tar archive (POSIX.1-2001, pax), which can be read without this program:
//
//	volume.json        what the volume is (Header)
//	content/PATH       of a volume with a file system: each file; a directory comes after what is in it
//	content            of a raw block volume: the device
//	extents/OFFSET     a part of the last file, if that has holes; its size is in its record TRIVET.size
//	end.json           SHA-256 of all bytes before, which a stream that was cut does not have
//
// Kept are names, owners, modes, times, symbolic and hard links, holes, devices, and extended attributes
// (SCHILY.xattr, POSIX ACLs and capabilities included, labels of SELinux and the like not). Sockets are left
// out, and what is only known to one file system (chattr(1)).
//
// A stream is input of unknown origin: nothing is written outside of the directory that it is extracted to,
// and all that is kept in memory has a bound.
package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Names of entries, and records of theirs.
const (
	headerName  = "volume.json"
	contentName = "content"
	extentsDir  = "extents/"
	endName     = "end.json"

	sizeRecord  = "TRIVET.size"
	xattrRecord = "SCHILY.xattr."
)

// version is that of the format.
const version = 1

// Bounds, in bytes.
const (
	maxHeader = 64 << 10
	maxEnd    = 1 << 10
	maxPath   = 4095
	copySize  = 256 << 10
)

// ErrFormat is a stream that is not a whole archive.
var ErrFormat = errors.New("not the stream of a volume")

// What a volume is for.
const (
	Mount = "mount"
	Block = "block"
)

// Header says what a volume is.
type Header struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`     // of this archive: no other has it
	Volume  string    `json:"volume"` // ID of the volume or snapshot that it is of
	Node    string    `json:"node"`
	Created time.Time `json:"created"` // when the content was as it is in the archive

	Access  string `json:"access"` // Mount or Block
	Size    int64  `json:"size"`   // bytes
	FSType  string `json:"fsType,omitempty"`
	Backend string `json:"backend"`
	NoCOW   bool   `json:"noCow,omitempty"`
}

var (
	validID     = regexp.MustCompile(`^[A-Za-z0-9]{16,64}$`)
	validFSType = regexp.MustCompile(`^[a-z0-9]{0,16}$`)
)

// check returns ErrFormat for a header that this version cannot have written.
func (h Header) check() error {
	switch {
	case h.Version != version:
		return fmt.Errorf("%w: it has version %d, known is %d", ErrFormat, h.Version, version)
	case !validID.MatchString(h.ID):
		return fmt.Errorf("%w: its id is %.80q", ErrFormat, h.ID)
	case h.Access != Mount && h.Access != Block:
		return fmt.Errorf("%w: access %.80q is neither %s nor %s", ErrFormat, h.Access, Mount, Block)
	case h.Size <= 0 || h.Size > 1<<62:
		return fmt.Errorf("%w: a size of %d bytes", ErrFormat, h.Size)
	case !validFSType.MatchString(h.FSType):
		return fmt.Errorf("%w: file system %.80q", ErrFormat, h.FSType)
	}
	return nil
}

// parseHeader reads the first entry.
func parseHeader(data []byte) (Header, error) {
	var h Header
	if err := json.Unmarshal(data, &h); err != nil {
		return h, fmt.Errorf("%w: %s: %w", ErrFormat, headerName, err)
	}
	return h, h.check()
}

// end is the last entry.
type end struct {
	SHA256 string `json:"sha256"` // of all bytes before the entry
}
