package subpath_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/subpath"
)

func TestBindShowsWhatIsInTheVolume(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	volume, target := filepath.Join(dir, "vol"), filepath.Join(dir, "sub", "0")
	must(t, os.MkdirAll(filepath.Join(volume, "..data"), 0o755))
	must(t, os.WriteFile(filepath.Join(volume, "..data", "key"), []byte("value"), 0o644))
	must(t, os.Symlink("..data/key", filepath.Join(volume, "key")))
	t.Cleanup(func() { must(t, mount.Unmount(target)) })
	for range 2 {
		must(t, subpath.Bind(volume, "key", target, subpath.Options{ReadOnly: true}))
	}

	data, err := os.ReadFile(target)
	if err != nil || string(data) != "value" {
		t.Errorf("read %q, %v", data, err)
	}

	points, err := mount.Below(target)
	if err != nil || len(points) != 1 {
		t.Errorf("mounts at target: %v %v: repeating must not stack", points, err)
	}
}

// The specs of stale subpaths unmount what a container has, and stop it: the next container is to have it.
func TestWhatWasUnmountedOrIsStaleIsBoundAgain(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	volume, target := filepath.Join(dir, "vol"), filepath.Join(dir, "sub", "0")
	sub := filepath.Join(volume, "data")
	must(t, os.MkdirAll(sub, 0o755))
	t.Cleanup(func() { must(t, mount.Unmount(target)) })
	must(t, subpath.Bind(volume, "data", target, subpath.Options{}))

	for name, spoil := range map[string]func() error{
		"unmounted": func() error { return unix.Unmount(target, unix.MNT_DETACH) },
		"stale": func() error {
			return errors.Join(os.Rename(sub, filepath.Join(dir, "away")), os.Mkdir(sub, 0o755))
		},
	} {
		must(t, spoil())
		must(t, subpath.Bind(volume, "data", target, subpath.Options{}))
		must(t, os.WriteFile(filepath.Join(sub, name), nil, 0o644))
		if _, err := os.Stat(filepath.Join(target, name)); err != nil {
			t.Errorf("what was %s does not show the volume: %v", name, err)
		}
	}
}

// A daemon that serves files (FUSE) was started again: what the container had of them is dead.
func TestWhatIsDeadIsBoundAgain(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	volume, target := filepath.Join(dir, "vol"), filepath.Join(dir, "sub", "0")
	must(t, os.MkdirAll(filepath.Join(volume, "data", "file"), 0o755))
	must(t, os.MkdirAll(target, 0o755))
	t.Cleanup(func() { must(t, mount.Unmount(target)) })

	daemon, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		testenv.Skip(t, "needs FUSE: %v", err)
	}
	defer daemon.Close()

	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", daemon.Fd())
	must(t, unix.Mount("daemon", target, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options))
	must(t, daemon.Close())
	if _, err := os.Stat(target); !errors.Is(err, unix.ENOTCONN) {
		t.Fatalf("a mount that should be dead: %v", err)
	}

	must(t, subpath.Bind(volume, "data", target, subpath.Options{}))
	if _, err := os.Stat(filepath.Join(target, "file")); err != nil {
		t.Errorf("the volume does not show: %v", err)
	}
}

func TestMissingDirectoriesAreMadeLikeTheVolume(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	volume, target := filepath.Join(dir, "vol"), filepath.Join(dir, "sub", "0")
	must(t, os.Mkdir(volume, 0o700))
	must(t, os.Chmod(volume, 0o777))
	t.Cleanup(func() { must(t, mount.Unmount(target)) })
	must(t, subpath.Bind(volume, "a/b", target, subpath.Options{}))
	info, err := os.Stat(filepath.Join(volume, "a", "b"))
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("made %v, %v", info.Mode(), err)
	}

	second := filepath.Join(dir, "sub", "1")
	if err := subpath.Bind(volume, "none", second, subpath.Options{ReadOnly: true}); err == nil {
		t.Error("a missing path of a read-only volume is made")
	}
}

func TestNoWayLeadsOut(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	volume, secret := filepath.Join(dir, "vol"), filepath.Join(dir, "secret")
	must(t, os.Mkdir(volume, 0o755))
	must(t, os.Mkdir(secret, 0o755))
	must(t, os.Symlink(secret, filepath.Join(volume, "absolute")))
	must(t, os.Symlink("../secret", filepath.Join(volume, "climbs")))
	must(t, os.Symlink("/proc/self/root", filepath.Join(volume, "magic")))
	for _, sub := range []string{
		"absolute", "climbs", "climbs/new", "magic", "magic/etc", "../secret", "/etc", "a/../../secret",
	} {
		target := filepath.Join(dir, "target")
		err := subpath.Bind(volume, sub, target, subpath.Options{})
		if err == nil {
			must(t, mount.Unmount(target))
			t.Errorf("%s leads out", sub)
		}
	}

	if entries, _ := os.ReadDir(secret); len(entries) != 0 {
		t.Errorf("something was made outside: %v", entries)
	}

	err := subpath.Bind(volume, "climbs", filepath.Join(dir, "target"), subpath.Options{})
	if !strings.Contains(err.Error(), "leads out") {
		t.Errorf("error %q does not say why", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
