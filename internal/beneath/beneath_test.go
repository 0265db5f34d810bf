package beneath_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
)

// tree has a directory "inside", which the names of the tests are opened below, and a file beside it.
func tree(t *testing.T) (inside string, fd int) {
	t.Helper()
	dir := t.TempDir()
	inside = filepath.Join(dir, "inside")
	err := errors.Join(
		os.MkdirAll(filepath.Join(inside, "a", "b"), 0o700),
		os.WriteFile(filepath.Join(inside, "a", "file"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "secret"), nil, 0o600),
		os.Symlink("a", filepath.Join(inside, "link")),
		os.Symlink(filepath.Join(inside, "a"), filepath.Join(inside, "absolute")),
		os.Symlink("../secret", filepath.Join(inside, "climbs")),
		os.Symlink("/proc/self/root", filepath.Join(inside, "magic")),
	)
	if err != nil {
		t.Fatal(err)
	}

	fd, err = unix.Open(inside, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { unix.Close(fd) })
	return inside, fd
}

func TestNamesStayBelowTheDirectory(t *testing.T) {
	_, dir := tree(t)
	cases := []struct {
		name           string
		links, noLinks error
	}{
		{"a/file", nil, nil},
		{"a/b/../file", nil, nil},
		{"link/file", nil, unix.ELOOP},
		{"link", nil, unix.ELOOP},
		{"absolute/file", unix.EXDEV, unix.ELOOP},
		{"climbs", unix.EXDEV, unix.ELOOP},
		{"magic/etc", unix.EXDEV, unix.ELOOP},
		{"..", unix.EXDEV, unix.EXDEV},
		{"a/../../secret", unix.EXDEV, unix.EXDEV},
		{"/etc", unix.EXDEV, unix.EXDEV},
		{"none", unix.ENOENT, unix.ENOENT},
	}

	for _, c := range cases {
		for rule, want := range map[beneath.Rule]error{beneath.Links: c.links, beneath.NoLinks: c.noLinks} {
			fd, err := beneath.Open(dir, c.name, unix.O_PATH, rule)
			if err == nil {
				unix.Close(fd)
			}
			if !errors.Is(err, want) {
				t.Errorf("%s with rule %#x: %v, want %v", c.name, rule, err, want)
			}
			if outside := want != nil && !errors.Is(want, unix.ENOENT); beneath.Outside(err) != outside {
				t.Errorf("%s with rule %#x: Outside(%v) = %t", c.name, rule, err, !outside)
			}
		}
	}
}

func TestDescriptorsAreNotInherited(t *testing.T) {
	_, dir := tree(t)
	fd, err := beneath.Open(dir, "a/file", unix.O_RDONLY, beneath.NoLinks)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

func TestOtherMountsAreNotEntered(t *testing.T) {
	root, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	if fd, err := beneath.Open(root, "proc/self", unix.O_PATH, beneath.OneFileSystem); !beneath.Outside(err) {
		t.Errorf("opened /proc as %d, %v", fd, err)
	}
}

func TestPathLeadsToWhatWasOpenedAndNotToItsName(t *testing.T) {
	inside, dir := tree(t)
	fd, err := beneath.Open(dir, "a", unix.O_PATH, beneath.NoLinks)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)

	err = errors.Join(
		os.Rename(filepath.Join(inside, "a"), filepath.Join(inside, "moved")),
		os.Mkdir(filepath.Join(inside, "a"), 0o700),
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(beneath.Path(fd), "file")); err != nil {
		t.Error(err)
	}
}

// The kernel cannot resolve ".." while something is renamed, and asks to try again.
func TestRenamesElsewhereDoNotFailALookUp(t *testing.T) {
	inside, dir := tree(t)
	end := make(chan struct{})
	var renaming sync.WaitGroup
	renaming.Go(func() {
		one, two := filepath.Join(inside, "link"), filepath.Join(inside, "renamed")
		for {
			select {
			case <-end:
				return
			default:
			}

			if err := errors.Join(os.Rename(one, two), os.Rename(two, one)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer renaming.Wait()
	defer close(end)

	for range 2000 {
		fd, err := beneath.Open(dir, "a/b/../file", unix.O_PATH, beneath.Links)
		if err != nil {
			t.Fatal(err)
		}

		unix.Close(fd)
	}
}
