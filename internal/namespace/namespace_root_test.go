package namespace_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestCreatePinsNamespacesThatCanBeEnteredAndReleased(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	pins := map[namespace.Kind]string{
		namespace.Net: filepath.Join(
			dir,
			"net",
		), namespace.IPC: filepath.Join(dir, "ipc"), namespace.UTS: filepath.Join(dir, "uts"),
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
	if err := namespace.Create(map[namespace.Kind]string{
		namespace.Net: path,
	}, func() error { return os.ErrInvalid }); err == nil {
		t.Fatal("the error of setup was lost")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the pin is still there")
	}
}

// The first thread of a process cannot be thrown away: were it ever used, the namespace would live as long as
// the process.
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

// TestAFailureInsideEndsTheTest has a function that ends its goroutine, as t.FailNow does: the caller of Do
// ends likewise, deferred calls included, instead of waiting forever.
func TestAFailureInsideEndsTheTest(t *testing.T) {
	testenv.Root(t)
	var reached bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)

		_ = namespace.Do(func() error { runtime.Goexit(); return nil }, "/proc/self/ns/net")
		reached = true
	}()

	<-ended
	if reached {
		t.Error("Do came back from a function that did not")
	}
}

func TestVisitReturnsHome(t *testing.T) {
	testenv.Root(t)
	pin := filepath.Join(testenv.ShortDir(t), "net")
	if err := namespace.Create(map[namespace.Kind]string{
		namespace.Net: pin,
	}, func() error { return nil }); err != nil {
		t.Fatal(err)
	}

	defer func() {
		if err := namespace.Unpin(pin); err != nil {
			t.Error(err)
		}
	}()

	where := func() string {
		name, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}

		return name
	}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	home, there := where(), ""
	failure := errors.New("from within")
	if err := namespace.Visit(func() error { there = where(); return failure }, pin); !errors.Is(
		err,
		failure,
	) {
		t.Errorf("error %v, want the function's", err)
	}

	if there == home || where() != home {
		t.Errorf("home %s, visited %s, now in %s", home, there, where())
	}

	if err := namespace.Visit(func() error { return nil }, pin+"-none"); err == nil ||
		!strings.Contains(err.Error(), "-none") {
		t.Errorf("error %v for a namespace that is not there, want one that names it", err)
	}
}
