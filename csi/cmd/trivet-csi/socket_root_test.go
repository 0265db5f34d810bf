package main

import (
	"errors"
	"os"
	"path/filepath"
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
