package survey

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/treewalk"
)

// Quota are the directories of the backend quota.
type Quota struct {
	Root     string               // where they are
	Disk     projectquota.State   // of the file system of the data directory
	Volumes  map[string]Directory // by ID; nil: Root is not there
	Unknown  []string             // paths that are of no volume
	Deleting []Deleting
}

// Deleting is what is left of a volume that was deleted.
type Deleting struct {
	ID    string
	Age   time.Duration // since its directory was moved or changed
	Files uint64        // of its project, the directory included, wherever they are
	Empty bool          // there is nothing in its directory
}

// Directory is a volume with a project quota, in bytes.
type Directory struct {
	Project uint32
	Used    int64
	Limit   int64 // 0: it has none
	Err     error // why it could not be looked at
}

func lookAtQuota(dataDir string) (Quota, error) {
	volumes, trash := quotadir.Paths(dataDir)
	q := Quota{Root: volumes}
	var err error
	if q.Disk, err = projectquota.StateOf(dataDir); err != nil {
		return q, err
	}

	entries, err := os.ReadDir(volumes)
	switch {
	case err == nil:
		q.Volumes = map[string]Directory{}
	case !errors.Is(err, fs.ErrNotExist):
		return q, err
	}

	for _, e := range entries {
		path := filepath.Join(volumes, e.Name())
		id, project, ok := quotadir.Parse(e.Name())
		if !ok {
			q.Unknown = append(q.Unknown, path)
			continue
		}
		if other, twice := q.Volumes[id]; twice {
			// The driver takes the one with the smaller number.
			if other.Project < project {
				q.Unknown = append(q.Unknown, path)
				continue
			}
			q.Unknown = append(q.Unknown, filepath.Join(volumes, fmt.Sprintf("%s.%d", id, other.Project)))
		}
		if v := lookAtDirectory(path, project); !errors.Is(v.Err, fs.ErrNotExist) {
			q.Volumes[id] = v
		}
	}

	entries, err = os.ReadDir(trash)
	if errors.Is(err, fs.ErrNotExist) {
		return q, nil
	}
	for _, e := range entries {
		path := filepath.Join(trash, e.Name())
		id, project, ok := quotadir.Parse(e.Name())
		if !ok {
			q.Unknown = append(q.Unknown, path)
			continue
		}
		if left, there := lookAtDeleting(path, id, project); there {
			q.Deleting = append(q.Deleting, left)
		}
	}
	return q, err
}

func lookAtDeleting(path, id string, project uint32) (left Deleting, there bool) {
	f, err := os.Open(path)
	if err != nil {
		return left, false
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return left, false
	}

	left = Deleting{ID: id, Age: time.Since(time.Unix(st.Ctim.Unix()))}
	if used, _, err := projectquota.Look(f, project); err == nil {
		left.Files = used.Inodes
	}
	left.Empty, _ = treewalk.IsEmpty(f)
	return left, true
}

func lookAtDirectory(path string, project uint32) Directory {
	f, err := os.Open(path)
	if err != nil {
		return Directory{Project: project, Err: err}
	}
	defer f.Close()
	used, limits, err := projectquota.Look(f, project)
	if errors.Is(err, errors.ErrUnsupported) {
		// What that means for all of them is said by the state of the disk.
		err = nil
	}
	return Directory{
		Project: project,
		Used:    int64(used.Bytes),
		Limit:   int64(limits.Bytes),
		Err:     err,
	}
}
