package program

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// ForgetStart gives back what the start alone has needed: memory that is free by now, and the pages of the
// program's own file. Each of these is resident once it was touched, and by then nearly all were. What work
// needs is mapped again when it is touched next, from the page cache, so that this is for the end of a start
// and not for now and then. Where /proc cannot be read only the memory is given back.
func ForgetStart() {
	debug.FreeOSMemory()

	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		if start, size, ok := parseReadOnly(line, self); ok {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, size, unix.MADV_DONTNEED)
		}
	}
}

// parseReadOnly returns where a line of proc_pid_maps(5) has a mapping of a file that nobody writes to, as
// code and constants of the program are: each page of it is as in the file.
func parseReadOnly(line, file string) (start, size uintptr, ok bool) {
	where, path, _ := strings.Cut(strings.TrimSpace(line), "/")
	fields := strings.Fields(where)
	if "/"+path != file || len(fields) < 2 || strings.Contains(fields[1], "w") {
		return 0, 0, false
	}

	var end uintptr
	if _, err := fmt.Sscanf(fields[0], "%x-%x", &start, &end); err != nil || end <= start {
		return 0, 0, false
	}
	return start, end - start, true
}
