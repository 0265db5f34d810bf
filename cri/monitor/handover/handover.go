// Package handover passes open descriptors from one program to the next one in the same process. execve(2)
// keeps descriptors, children and the PID, so a program that was upgraded goes on where the one before it
// was.
package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/durable"
)

const (
	// recordFile names the descriptors, below a directory that both programs know.
	recordFile = "inherit.json"

	// marker is set in the environment of the next program. Without it, a record was left by a process that
	// was killed just before its execve, and whose PID this process happens to have.
	marker = "TRIVET_MONITOR_REEXEC"
)

// record is the content of recordFile. Programs of other versions read it.
type record struct {
	Pid int
	Fds map[string]int
}

// Descriptors are open descriptors by name.
type Descriptors map[string]int

// Receive returns the descriptors that the program before this one handed over, close-on-exec; nil if this
// process has executed no other program. It removes the record from dir, so it must be called once, at the
// start.
func Receive(dir string) (Descriptors, error) {
	path := filepath.Join(dir, recordFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)

	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Pid != os.Getpid() || os.Getenv(marker) == "" {
		return nil, nil
	}

	// Children must not inherit them.
	for _, fd := range r.Fds {
		unix.CloseOnExec(fd)
	}

	return r.Fds, nil
}

// Take removes a descriptor and returns it; the caller closes it.
func (d Descriptors) Take(name string) (fd int, ok bool) {
	fd, ok = d[name]
	delete(d, name)
	return fd, ok
}

// Add adds a copy of fd that an execve keeps open.
func (d Descriptors) Add(name string, fd int) error {
	inheritable, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 3)
	if err != nil {
		return fmt.Errorf("hand over %s: %w", name, err)
	}
	d[name] = inheritable
	return nil
}

// AddConn adds a copy of the descriptor of a file or socket.
func (d Descriptors) AddConn(name string, conn syscall.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("hand over %s: %w", name, err)
	}

	var addErr error
	if err := raw.Control(func(fd uintptr) { addErr = d.Add(name, int(fd)) }); err != nil {
		return fmt.Errorf("hand over %s: %w", name, err)
	}
	return addErr
}

// Close closes all descriptors.
func (d Descriptors) Close() {
	for name, fd := range d {
		unix.Close(fd)
		delete(d, name)
	}
}

// Exec executes program in this process, with the same arguments, and hands the descriptors over to it by a
// record in dir. It returns only on an error; the descriptors are still open then.
func (d Descriptors) Exec(program, dir string) error {
	data, err := json.Marshal(record{Pid: os.Getpid(), Fds: d})
	if err != nil {
		return err
	}

	path := filepath.Join(dir, recordFile)
	if err := durable.WriteVolatile(path, data, 0o600); err != nil {
		return err
	}

	env := append(withoutMarker(os.Environ()), marker+"=1")
	err = unix.Exec(program, os.Args, env)
	os.Remove(path)
	return fmt.Errorf("execute %s: %w", program, err)
}

func withoutMarker(env []string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, marker+"=") {
			out = append(out, e)
		}
	}
	return out
}
