package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/socket"
)

// A cleanup of the directory may remove the driver's sockets. kubelet forgets a plugin then, until
// it sees the socket again.
func TestRemovedSocketsAreMadeAgain(t *testing.T) {
	p := newProcess(t)
	reg := p.registration()
	for what, remove := range map[string]func() error{
		"a socket was removed": func() error {
			return errors.Join(os.Remove(reg), os.Remove(p.dir+"/csi.sock"))
		},
		"its directory was removed": func() error {
			return errors.Join(removeWhole(filepath.Dir(reg)), os.Remove(p.dir+"/csi.sock"))
		},
		"its directory was removed, and made again": func() error {
			return errors.Join(removeWhole(filepath.Dir(reg)), os.MkdirAll(filepath.Dir(reg), 0o755))
		},
	} {
		if err := remove(); err != nil {
			t.Fatal(err)
		}

		for _, path := range []string{reg, p.dir + "/csi.sock"} {
			awaitSocket(t, what, path)
		}
	}

	p.ready()
	p.end(syscall.SIGTERM)
	for _, path := range []string{reg, p.dir + "/csi.sock"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("socket %s is left: %v", path, err)
		}
	}
}

// removeWhole removes a directory in which the driver may make its socket again meanwhile.
func removeWhole(dir string) error {
	for {
		if err := os.RemoveAll(dir); !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
}

func awaitSocket(t *testing.T, what, path string) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for !socket.Alive(path) {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%s: nobody answers on %s", what, path)
		}
	}
}

// What can be called is called by root alone: there is no port, and nobody else opens the sockets
// (CVE-2021-36779 and CVE-2021-36780 are of a service on a port).
func TestSocketsAreRootsAlone(t *testing.T) {
	p := newProcess(t)
	sockets := map[string]bool{}
	err := filepath.WalkDir(p.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type() != os.ModeSocket {
			return err
		}
		sockets[filepath.Base(path)] = true
		st, err := os.Stat(path)
		if err == nil && st.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s has mode %v", path, st.Mode())
		}
		return err
	})
	if err != nil || !sockets["csi.sock"] || !sockets["loans.sock"] || len(sockets) != 3 {
		t.Errorf("sockets %v, %v", sockets, err)
	}

	ports, err := listening(p.cmd.Process.Pid)
	if err != nil || len(ports) > 0 {
		t.Errorf("it listens on %q, %v", ports, err)
	}
	p.end(syscall.SIGTERM)
}

// listening returns the addresses of the TCP sockets that a process listens on.
func listening(pid int) ([]string, error) {
	own := map[string]bool{}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		// It may have been closed meanwhile.
		name, _ := os.Readlink(link)
		own[strings.TrimSuffix(strings.TrimPrefix(name, "socket:["), "]")] = true
	}

	var found []string
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			// Fields 1, 3 and 9 are the local address, the state (0A is LISTEN) and the inode, see proc(5).
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" && own[f[9]] {
				found = append(found, f[1])
			}
		}
	}
	return found, nil
}
