package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/trivet-node/trivet/internal/durable"
)

// Usage is what a container wrote.
type Usage struct{ Bytes, Inodes int64 }

// Usage walks the writable layer of a container: its cost grows with the number of files that the container wrote. One that is not
// there uses nothing, and what cannot be seen (a path longer than the kernel takes, a file that is gone meanwhile) is not counted: no container
// may keep the node from knowing about the others.
func (m *Manager) Usage(id string) (Usage, error) {
	if err := checkID(id); err != nil {
		return Usage{}, err
	}
	written, err := usage(m.upper(id))
	if err != nil {
		return Usage{}, err
	}
	volumes, err := usage(m.volumes(id))
	return Usage{Bytes: written.Bytes + volumes.Bytes, Inodes: written.Inodes + volumes.Inodes}, err
}

// TotalUsage is what all containers wrote.
func (m *Manager) TotalUsage() (Usage, error) { return usage(m.containers()) }

// Dir is where the writable layers are, for ImageFsInfo.
func (m *Manager) Dir() string { return m.config.Dir }

func usage(dir string) (u Usage, err error) {
	seen := make(map[uint64]struct{}) // of files with several links
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				u.add(info.Sys().(*syscall.Stat_t), seen)
			}
		}
		if path != dir || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return u, err
}

func (u *Usage) add(st *syscall.Stat_t, seen map[uint64]struct{}) {
	if st.Nlink > 1 && st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		if _, again := seen[st.Ino]; again {
			return
		}
		seen[st.Ino] = struct{}{}
	}
	u.Bytes += st.Blocks * 512
	u.Inodes++
}

// checkID refuses what would be a path.
func checkID(id string) error {
	if !durable.ValidName(id) {
		return &os.PathError{Op: "rootfs", Path: id, Err: fs.ErrInvalid}
	}
	return nil
}
