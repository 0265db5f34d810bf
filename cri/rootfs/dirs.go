package rootfs

import (
	"io/fs"
	"os"

	"github.com/trivet-node/trivet/internal/durable"
)

// Dirs returns the directories of what a container wrote: its writable layer, and the volumes of its image.
// They need not be there.
func (s *Store) Dirs(id string) []string { return []string{s.upper(id), s.volumes(id)} }

// Project returns the directory whose project quota counts what a container wrote, where there are such.
func (s *Store) Project(id string) string { return s.writable(id) }

// Dir returns where the writable layers are, for ImageFsInfo.
func (s *Store) Dir() string { return s.cfg.Dir }

// checkID returns an error for an ID that would be a path.
func checkID(id string) error {
	if !durable.ValidName(id) {
		return &os.PathError{Op: "rootfs", Path: id, Err: fs.ErrInvalid}
	}
	return nil
}
