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

	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/internal/socket"
)

// A cleanup of the directory may remove the driver's sockets. kubelet forgets a plugin then, until
// it sees the socket again.
func TestRemovedSocketsAreMadeAgain(t *testing.T) {
	p := newProcess(t)
	reg := filepath.Join(p.dir, "reg", driver.Name+"-reg.sock")
	for what, remove := range map[string]func() error{
		"a socket": func() error { return errors.Join(os.Remove(reg), os.Remove(p.dir+"/csi.sock")) },
		"its directory": func() error {
			return errors.Join(os.RemoveAll(filepath.Dir(reg)), os.Remove(p.dir+"/csi.sock"))
		},
		"its directory, which is made again": func() error {
			return errors.Join(os.RemoveAll(filepath.Dir(reg)), os.Mkdir(filepath.Dir(reg), 0o755))
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

func awaitSocket(t *testing.T, what, path string) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(20 * time.Second)
	for !socket.Alive(path) {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%s was removed, and nobody answers on %s", what, path)
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
