package namespace_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestNamespacesBelongToTheUsersTheyAreMadeFor(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	users := namespace.Users{
		Path:   filepath.Join(dir, "user"),
		First:  1 << 17,
		Length: 1 << 16,
	}

	pins := map[namespace.Kind]string{
		namespace.Net: filepath.Join(dir, "net"),
		namespace.UTS: filepath.Join(dir, "uts"),
	}

	// As the host's root, which may do all in it.
	err := namespace.CreateOwned(pins, users, func() error { return unix.Sethostname([]byte("mapped")) })
	if err != nil {
		t.Fatal(err)
	}

	for kind, path := range pins {
		if got := ownerOf(t, path); got != number(t, users.Path) {
			t.Errorf("the %s namespace belongs to %d", kind, got)
		}
	}

	if left := children(t); left != "" {
		t.Errorf("left: processes %s", left)
	}

	for _, path := range []string{users.Path, pins[namespace.Net], pins[namespace.UTS]} {
		if err := namespace.Unpin(path); err != nil {
			t.Error(err)
		}
	}
}

func TestNothingIsLeftOfNamespacesThatCannotBeSetUp(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	users := namespace.Users{Path: filepath.Join(dir, "user"), First: 1 << 16, Length: 1 << 16}
	pins := map[namespace.Kind]string{namespace.Net: filepath.Join(dir, "net")}
	broken := errors.New("broken")
	if err := namespace.CreateOwned(pins, users, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}

	// These the kernel refuses.
	users.Length = 1 << 31
	users.First = 1 << 31
	if err := namespace.CreateOwned(pins, users, nil); err == nil || users.Check() == nil {
		t.Error("IDs up to the one that means none are accepted")
	}

	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 || children(t) != "" {
		t.Errorf("left: %v, processes %q, %v", left, children(t), err)
	}
}

func TestUsersOutside(t *testing.T) {
	u := namespace.Users{First: 100, Length: 10}
	if out, ok := u.Outside(9); out != 109 || !ok {
		t.Errorf("the last: %d, %t", out, ok)
	}
	if _, ok := u.Outside(10); ok {
		t.Error("one that is not mapped has an ID outside")
	}
	for _, bad := range []namespace.Users{{First: 5}, {Length: 5}, {First: 1<<32 - 2, Length: 2}} {
		if bad.Check() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// ownerOf returns the number of the user namespace that a pinned namespace belongs to.
func ownerOf(t *testing.T, path string) uint64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	owner, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(owner)
	return number(t, fmt.Sprintf("/proc/self/fd/%d", owner))
}

// number returns the inode of a file.
func number(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// children returns the process IDs of the children of this process.
func children(t *testing.T) string {
	t.Helper()
	var all []string
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, _ := os.ReadFile(f)
		all = append(all, strings.Fields(string(text))...)
	}
	return strings.Join(all, " ")
}

func TestCopiesOfMountsKeepNoneOfThemBusy(t *testing.T) {
	testenv.Root(t)
	host := testenv.ShortDir(t)
	early, ours := filepath.Join(host, "early"), filepath.Join(host, "ours")
	t.Cleanup(func() { _ = mount.UnmountBelow(host) })
	if err := errors.Join(
		unix.Mount("host", host, "tmpfs", 0, ""),
		unix.Mount("", host, "", unix.MS_SHARED, ""),
		os.Mkdir(early, 0o755),
		os.Mkdir(ours, 0o755),
		unix.Mount("early", early, "tmpfs", 0, ""),
	); err != nil {
		t.Fatal(err)
	}

	unmounted := make(chan error)
	err := namespace.InOwnMounts(func() error {
		if err := unix.Mount("ours", ours, "tmpfs", 0, ""); err != nil {
			return err
		}

		go func() {
			seen, err := mount.Mounted(ours)
			if seen {
				err = errors.New("a mount of the copy is seen outside")
			}
			unmounted <- errors.Join(err, unix.Unmount(early, 0))
		}()
		if err := <-unmounted; err != nil {
			return err
		}

		if busy, err := mount.Mounted(early); busy || err != nil {
			return fmt.Errorf("the copy keeps what was unmounted: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
