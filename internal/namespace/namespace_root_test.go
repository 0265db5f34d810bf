package namespace_test

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestCreatePinsNamespacesThatCanBeEnteredAndReleased(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	pins := map[namespace.Kind]string{
		namespace.Net: filepath.Join(dir, "net"), namespace.IPC: filepath.Join(dir, "ipc"), namespace.UTS: filepath.Join(dir, "uts"),
	}
	if err := namespace.Create(pins, nil); err != nil {
		t.Fatal(err)
	}
	for kind, path := range pins {
		if !namespace.Pinned(path) {
			t.Errorf("%s is not pinned on %s", kind, path)
		}
	}
	err := namespace.Do(func() error {
		links, err := net.Interfaces()
		if err == nil && len(links) != 1 {
			t.Errorf("a new network namespace has %d interfaces, want loopback only", len(links))
		}
		return err
	}, pins[namespace.Net])
	if err != nil {
		t.Error(err)
	}
	for range 2 {
		for _, path := range pins {
			if err := namespace.Unpin(path); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestCreateLeavesNoPinWhenSetupFails(t *testing.T) {
	testenv.Root(t)
	path := filepath.Join(testenv.ShortDir(t), "net")
	if err := namespace.Create(map[namespace.Kind]string{namespace.Net: path}, func() error { return os.ErrInvalid }); err == nil {
		t.Fatal("the error of setup was lost")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the pin is still there")
	}
}

// The first thread of a process cannot be thrown away: were it ever used, the namespace would live as long as the process.
func TestDoLeavesTheFirstThreadAlone(t *testing.T) {
	testenv.Root(t)
	ns := testenv.Netns(t)
	before := link(t, "/proc/self/ns/net")
	var group sync.WaitGroup
	for range 200 {
		group.Go(func() {
			if err := namespace.Do(func() error { return nil }, ns); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if now := link(t, "/proc/self/ns/net"); now != before {
		t.Fatalf("the first thread is in %s, not in %s", now, before)
	}
}

func link(t *testing.T, path string) string {
	t.Helper()
	to, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return to
}
