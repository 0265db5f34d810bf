package runc

import (
	"fmt"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"
)

// sealed are the copies of runtimes by path. A container that finds the runtime by /proc/self/exe could
// overwrite it (CVE-2019-5736), so crun, unless it sees that it runs from sealed memory, mounts itself
// read-only on a temporary file and starts anew: 2 to 4 ms in each call, and a file or a mount that stays
// behind in /tmp when it is killed then.
var sealed struct {
	sync.Mutex
	copies map[string]sealedCopy
}

type sealedCopy struct {
	of   os.FileInfo
	file *os.File // nil when the program is executed as it is
}

// maxSealed is the size up to which a program is worth its copy: crun is half a MiB; runc, with 10, protects
// itself at the same cost either way.
const maxSealed = 4 << 20

// Executable returns the path to start the runtime by: of a sealed copy in memory, or the program's own where
// there cannot be one. A program that was exchanged on disk is copied again.
func (r Runtime) Executable() (string, error) {
	path, err := exec.LookPath(r.Program)
	if err != nil {
		return "", fmt.Errorf("OCI runtime: %w", err)
	}

	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("OCI runtime: %w", err)
	}

	sealed.Lock()
	defer sealed.Unlock()

	c, known := sealed.copies[path]
	if !known || !os.SameFile(c.of, info) || !c.of.ModTime().Equal(info.ModTime()) ||
		c.of.Size() != info.Size() {
		// The copy before it stays open: somebody may be about to execute it.
		c = sealedCopy{of: info, file: seal(path, info.Size())}
		if sealed.copies == nil {
			sealed.copies = map[string]sealedCopy{}
		}

		sealed.copies[path] = c
	}

	if c.file == nil {
		return path, nil
	}

	// Through this process, as a descriptor's number may mean something else in the child before it executes.
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), c.file.Fd()), nil
}

// seal copies a program into memory that nobody can change. nil when it is too big, not a binary (a script's
// interpreter could not open it), or the kernel forbids it (vm.memfd_noexec=2).
func seal(path string, size int64) *os.File {
	if size > maxSealed {
		return nil
	}

	program, err := os.ReadFile(path)
	if err != nil || len(program) < 4 || string(program[:4]) != "\x7fELF" {
		return nil
	}

	fd, err := unix.MemfdCreate("oci-runtime", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)

	// before Linux 6.3 all were executable
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("oci-runtime", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil
	}

	w := os.NewFile(uintptr(fd), "oci-runtime")
	defer w.Close()

	if _, err := w.Write(program); err != nil {
		return nil
	}

	// Exactly these: crun compares.
	if _, err := unix.FcntlInt(w.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return nil
	}

	r, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", w.Fd()))
	if err != nil {
		return nil
	}

	return r
}
