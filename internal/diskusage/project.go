package diskusage

import (
	"errors"

	"github.com/trivet-node/trivet/internal/projectquota"
)

// project is what the kernel says of the project of a tree.
type project struct {
	Usage

	// known is false for a tree without one, and none is true if it will not get one: a project is given to a
	// directory that is empty.
	known, none bool
}

// projectOf asks for the project of a directory.
func projectOf(dir string) project {
	if dir == "" {
		return project{}
	}
	used, err := projectquota.Of(dir)
	if err != nil {
		return project{none: errors.Is(err, projectquota.ErrNone)}
	}
	return project{Usage: Usage{Bytes: used.Bytes, Inodes: used.Inodes}, known: true}
}

// outsideOf is by how much a tree is larger than its project says, by files that were taken out of it. The
// project may have been anything between what it said when the count began and when it ended. One that is
// larger than the tree is right: it still has what was just deleted.
func outsideOf(counted, began, ended Usage) Usage {
	return Usage{
		Bytes:  beyond(counted.Bytes, max(began.Bytes, ended.Bytes)),
		Inodes: beyond(counted.Inodes, max(began.Inodes, ended.Inodes)),
	}
}

// beyond is by how much a number is larger than another one.
func beyond(n, limit uint64) uint64 { return max(n, limit) - limit }
