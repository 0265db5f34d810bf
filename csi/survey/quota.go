package survey

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/internal/projectquota"
)

// Quota are the directories of the backend quota.
type Quota struct {
	Root     string             // where they are
	Disk     projectquota.State // of the file system of the data directory
	Volumes  map[string]Directory
	Unknown  []string // paths that are of no volume
	Deleting int      // how many are being deleted
}

// Directory is a volume with a project quota, in bytes.
type Directory struct {
	Used  int64
	Limit int64 // 0: it has none
	Err   error // why it could not be looked at
}

func lookAtQuota(dataDir string) (Quota, error) {
	volumes, trash := quotadir.Paths(dataDir)
	q := Quota{Root: volumes, Volumes: map[string]Directory{}}
	var err error
	if q.Disk, err = projectquota.StateOf(dataDir); err != nil {
		return q, err
	}

	entries, err := os.ReadDir(volumes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return q, err
	}
	for _, e := range entries {
		path := filepath.Join(volumes, e.Name())
		id, project, ok := quotadir.Parse(e.Name())
		if _, twice := q.Volumes[id]; !ok || twice {
			q.Unknown = append(q.Unknown, path)
			continue
		}
		if v := lookAtDirectory(path, project); !errors.Is(v.Err, fs.ErrNotExist) {
			q.Volumes[id] = v
		}
	}

	entries, err = os.ReadDir(trash)
	q.Deleting = len(entries)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return q, err
}

func lookAtDirectory(path string, project uint32) Directory {
	f, err := os.Open(path)
	if err != nil {
		return Directory{Err: err}
	}
	defer f.Close()
	used, limits, err := projectquota.Look(f, project)
	if errors.Is(err, errors.ErrUnsupported) {
		// What that means for all of them is said by the state of the disk.
		err = nil
	}
	return Directory{Used: int64(used.Bytes), Limit: int64(limits.Bytes), Err: err}
}
