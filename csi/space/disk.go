package space

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// FileSystem is the Disk that a directory is on.
type FileSystem struct {
	Dir     string
	Reserve int64 // bytes that volumes never get
}

// Free returns what an unprivileged user could still write, less the reserve.
func (f FileSystem) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(f.Dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", f.Dir, err)
	}
	return int64(st.Bavail)*st.Bsize - f.Reserve, nil
}
