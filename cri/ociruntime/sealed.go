package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"
)

// copies are the copies of runtimes in sealed memory, by path. A container that finds the runtime by
// /proc/self/exe could overwrite it (CVE-2019-5736), so crun, unless it sees that it runs from sealed
// memory, mounts itself read-only on a temporary file and executes that: 2 to 4 ms in each call, and a file
// or a mount that stays behind in /tmp if it is killed then.
type copies struct {
	mu     sync.Mutex // guards byPath
	byPath map[string]sealedCopy
}

type sealedCopy struct {
	// of is the program when it was copied.
	of os.FileInfo

	// file is nil if the program is executed as it is.
	file *os.File
}

// isOf reports whether the copy is of the program that info describes.
func (c sealedCopy) isOf(info os.FileInfo) bool {
	return os.SameFile(c.of, info) && c.of.ModTime().Equal(info.ModTime()) && c.of.Size() == info.Size()
}

// maxSealed is the size in bytes up to which a program is worth its copy: crun is half a MiB; runc, with
// 10 MiB, protects itself at the same cost either way.
const maxSealed = 4 << 20

// Executable returns the path by which to execute a runtime: of a copy in sealed memory, or the program's
// own where there cannot be one. A program that was replaced on disk is copied again. The copy is reached
// through this process, so it can be executed only while this process lives.
func (r *Runner) Executable(rt Runtime) (string, error) {
	path, err := exec.LookPath(rt.Program)
	if err != nil {
		return "", fmt.Errorf("OCI runtime: %w", err)
	}

	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("OCI runtime: %w", err)
	}

	file := r.sealed.of(path, info)
	if file == nil {
		return path, nil
	}

	// Not /proc/self: a descriptor's number may mean something else in the child before it executes.
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()), nil
}

// of returns the copy of the program at path, which it makes if there is none of its present content.
func (s *copies) of(path string, info os.FileInfo) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()

	if c, ok := s.byPath[path]; ok && c.isOf(info) {
		return c.file
	}

	// An earlier copy stays open: another goroutine may be about to execute it.
	c := sealedCopy{of: info, file: seal(path, info.Size())}
	if s.byPath == nil {
		s.byPath = map[string]sealedCopy{}
	}

	s.byPath[path] = c
	return c.file
}

// seal copies a program into memory that nobody can change. It returns nil if the program is too big or not
// a binary (a script's interpreter could not open it), or if the kernel forbids it (vm.memfd_noexec=2).
func seal(path string, size int64) *os.File {
	if size > maxSealed {
		return nil
	}

	program, err := os.ReadFile(path)
	if err != nil || len(program) < 4 || string(program[:4]) != "\x7fELF" {
		return nil
	}

	fd, err := unix.MemfdCreate("oci-runtime", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		// Before Linux 6.3 all memory files could be executed.
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
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(w.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil
	}

	// A file that is open for writing cannot be executed, so the copy is opened a second time.
	r, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", w.Fd()))
	if err != nil {
		return nil
	}

	return r
}
