package usage

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// Processes are those of a group and of the groups below it.
type Processes struct {
	// Count is how many there are, PIDs the first maxListed of them.
	Count int
	PIDs  []int
}

// Bounds of a listing: a container may have as many processes as its limit allows, and may make groups.
const (
	maxListed = 1024
	maxText   = 1 << 20
	maxGroups = 64
)

// Processes lists the processes of the group. A group that is gone has none.
func (r *Reader) Processes() (Processes, error) {
	f := procsV1
	if r.group.V2 {
		f = procsV2
	}

	dir, err := r.dir(table[f].controller)
	if errors.Is(err, fs.ErrNotExist) {
		return Processes{}, nil
	}
	if err != nil {
		return Processes{}, err
	}

	defer r.release()

	l := listing{left: maxGroups}
	l.walk(dir)
	return l.found, nil
}

// listing is a walk of the groups of one container.
type listing struct {
	found Processes
	left  int
}

// walk lists the processes of the group whose directory is open, and of those below.
func (l *listing) walk(dir int) {
	l.list(dir)

	// The number of links of a directory counts those in it. Most containers have no groups below their own.
	var st unix.Stat_t
	if unix.Fstat(dir, &st) != nil || st.Nlink <= 2 {
		return
	}

	for _, name := range below(dir) {
		if l.left == 0 {
			return
		}

		l.left--
		flags := unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if fd, err := unix.Openat(dir, name, flags, 0); err == nil {
			l.walk(fd)
			unix.Close(fd)
		}
	}
}

// list adds the processes of one group.
func (l *listing) list(dir int) {
	fd, err := openAt(dir, "cgroup.procs")
	if err != nil {
		return
	}
	defer unix.Close(fd)

	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	if len(buf.bytes) == 0 {
		buf.bytes = make([]byte, bufferSize)
	}

	rest := 0
	for read := 0; read < maxText; {
		n, err := retried(func() (int, error) { return unix.Read(fd, buf.bytes[rest:]) })
		if n <= 0 || err != nil {
			return
		}

		read += n
		text := buf.bytes[:rest+n]
		whole := bytes.LastIndexByte(text, '\n') + 1
		l.add(text[:whole])
		rest = copy(buf.bytes, text[whole:])
	}
}

func (l *listing) add(text []byte) {
	for line := range lines(text) {
		l.found.Count++

		// 0 is a process of another PID namespace.
		if pid := number(line); pid > 0 && len(l.found.PIDs) < maxListed {
			l.found.PIDs = append(l.found.PIDs, int(pid))
		}
	}
}

// below returns the names of the directories in one, at most a page of them.
func below(dir int) []string {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)

	page := make([]byte, bufferSize)
	n, err := unix.ReadDirent(fd, page)
	if err != nil || n <= 0 {
		return nil
	}

	_, _, names := unix.ParseDirent(page[:n], -1, nil)
	return slices.DeleteFunc(names, func(name string) bool {
		var st unix.Stat_t
		err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		return err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR
	})
}
