package series

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

// devices knows the names of block devices, and the file system of the writable layers.
type devices struct {
	dir string

	// mu guards what follows.
	mu    sync.Mutex
	names map[uint64]string
	found bool
	fs    fileSystem
}

// fileSystem is that of the writable layers.
type fileSystem struct {
	device                    string
	bytes, inodes, inodesFree uint64
}

// maxNames is how many names of devices are remembered.
const maxNames = 1024

// name returns the path of a block device by its number.
func (d *devices) name(major, minor uint32) string {
	d.mu.Lock()
	defer d.mu.Unlock()

	number := unix.Mkdev(major, minor)
	if name, known := d.names[number]; known {
		return name
	}

	if len(d.names) >= maxNames || d.names == nil {
		d.names = map[uint64]string{}
	}

	name := nameOf(major, minor)
	d.names[number] = name
	return name
}

// nameOf asks the kernel for the name; "MAJOR:MINOR" if it does not know it.
func nameOf(major, minor uint32) string {
	number := strconv.FormatUint(uint64(major), 10) + ":" + strconv.FormatUint(uint64(minor), 10)
	event, err := os.ReadFile("/sys/dev/block/" + number + "/uevent")
	if err != nil {
		return number
	}

	for line := range bytes.Lines(event) {
		if name, found := bytes.CutPrefix(bytes.TrimSpace(line), []byte("DEVNAME=")); found {
			return "/dev/" + string(name)
		}
	}

	return number
}

// fileSystem returns the size of the file system of the writable layers.
func (d *devices) fileSystem() (fileSystem, error) {
	d.mu.Lock()
	defer d.mu.Unlock()

	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		return fileSystem{}, fmt.Errorf("file system of %s: %w", d.dir, err)
	}

	if !d.found {
		d.fs.device = sourceOf(d.dir)
		d.found = true
	}

	d.fs.bytes = st.Blocks * uint64(st.Bsize)
	d.fs.inodes = st.Files
	d.fs.inodesFree = st.Ffree
	return d.fs, nil
}

// sourceOf returns what is mounted where a directory is, such as "/dev/sda1".
func sourceOf(dir string) string {
	mounts, err := mountinfo.Self()
	if err != nil {
		return ""
	}

	var best mountinfo.Mount
	for _, m := range mounts {
		if within(dir, m.Point) && len(m.Point) >= len(best.Point) {
			best = m
		}
	}

	return best.Source
}

// within reports whether a path is a directory or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
