// Package procfs counts what processes have open, and reads their limits (proc_pid_fd(5),
// proc_pid_limits(5)).
package procfs

import (
	"errors"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Open is what a set of processes has open.
type Open struct {
	Descriptors uint64

	// Sockets are those among the descriptors.
	Sockets uint64

	// A number that is too low would be a wrong one: SocketsUnknown is true where there are more descriptors
	// than are looked at, Unknown where there are more than are counted.
	SocketsUnknown bool
	Unknown        bool
}

// maxLooked is how many descriptors of one set of processes are looked at, maxCounted how many are counted
// where the kernel does not do it (before Linux 6.2).
const (
	maxLooked  = 2048
	maxCounted = 100_000
)

// Count counts what processes have open. One that has ended, or that may not be looked at, has nothing open.
func Count(pids []int) Open {
	c := counter{left: maxLooked}
	for _, pid := range pids {
		c.process(pid)
	}
	return c.found
}

type counter struct {
	found Open
	page  []byte

	// left is how many descriptors may be looked at, listed how many were counted one by one.
	left, listed int
}

func (c *counter) process(pid int) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)

	// Since Linux 6.2 the size of the directory is the number of descriptors.
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Size > int64(c.left) {
		c.found.Descriptors += uint64(st.Size)
		c.found.SocketsUnknown = true
		return
	}

	if c.page == nil {
		c.page = make([]byte, 16<<10)
	}

	for !c.found.Unknown {
		n, err := unix.ReadDirent(fd, c.page)
		if n <= 0 || err != nil {
			return
		}

		_, _, names := unix.ParseDirent(c.page[:n], -1, nil)
		for _, name := range names {
			c.descriptor(fd, name)
		}
	}
}

// descriptor counts one descriptor of a process.
func (c *counter) descriptor(dir int, name string) {
	c.found.Descriptors++
	c.listed++
	c.found.Unknown = c.listed > maxCounted
	if c.left == 0 {
		c.found.SocketsUnknown = true
		return
	}

	c.left--
	var target [len(socket)]byte
	n, err := unix.Readlinkat(dir, name, target[:])
	if err == nil && strings.HasPrefix(string(target[:n]), socket) {
		c.found.Sockets++
	}
}

// socket is how the target of a descriptor that is a socket begins.
const socket = "socket:"

// OpenFilesLimit returns how many descriptors a process may have open (its soft RLIMIT_NOFILE). It is read
// from /proc/PID/limits (proc_pid_limits(5)): prlimit(2) needs a capability for processes of other users.
func OpenFilesLimit(pid int) (uint64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/limits")
	if err != nil {
		return 0, err
	}
	return openFiles(string(text))
}

// openFiles parses the line "Max open files            1024                 1048576              files".
func openFiles(limits string) (uint64, error) {
	for line := range strings.Lines(limits) {
		rest, found := strings.CutPrefix(line, "Max open files")
		fields := strings.Fields(rest)
		switch {
		case !found || len(fields) == 0:
		case fields[0] == "unlimited":
			return math.MaxUint64, nil
		default:
			return strconv.ParseUint(fields[0], 10, 64)
		}
	}

	return 0, errors.New("no limit of open files")
}
