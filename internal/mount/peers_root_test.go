package mount_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
)

// shared is a directory on a host whose mounts are shared, as systemd has them, with something mounted in it.
func shared(t *testing.T) (host, source, target string) {
	t.Helper()
	testenv.Root(t)
	host = testenv.ShortDir(t)
	t.Cleanup(func() { _ = mount.UnmountBelow(host) })
	source, target = host+"/source", host+"/ours/target"
	must(t,
		unix.Mount("host", host, "tmpfs", 0, ""),
		unix.Mount("", host, "", unix.MS_SHARED, ""),
		os.MkdirAll(source+"/early", 0o755),
		os.MkdirAll(source+"/late", 0o755),
		os.MkdirAll(target, 0o755),
		unix.Mount("early", source+"/early", "tmpfs", 0, ""),
	)
	return host, source, target
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// stay fails if one of the paths is not mounted.
func stay(t *testing.T, what string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if is, err := mount.Mounted(p); err != nil || !is {
			t.Errorf("%s: nothing is mounted on %s: %v", what, p, err)
		}
	}
}

// unmounts are the ways to unmount a target.
var unmounts = map[string]func(host, target string) error{
	"Unmount":      func(_, target string) error { return mount.Unmount(target) },
	"UnmountBelow": func(host, _ string) error { return mount.UnmountBelow(host + "/ours") },
}

func TestWhatTheHostHasMountedInASourceStays(t *testing.T) {
	for name, unmount := range unmounts {
		for _, recursive := range []bool{true, false} {
			host, source, target := shared(t)
			must(t,
				mount.Bind(source, target, mount.BindOptions{Recursive: recursive}),
				unix.Mount("late", source+"/late", "tmpfs", 0, ""),
			)
			stay(t, "comes along", target+"/late")

			// One that covers the source covers what was bound from it.
			must(t, unix.Mount("cover", source, "tmpfs", 0, ""))
			for range 2 {
				must(t, unmount(host, target))
			}

			stay(t, name, source)
			must(t, unix.Unmount(source, 0))
			stay(t, name, source+"/early", source+"/late")
		}
	}
}

// Such as by kubelet, or for a container that is to mount something for the host.
func TestPeersThatWereBoundByOthersAreLeft(t *testing.T) {
	for name, unmount := range unmounts {
		host, source, target := shared(t)
		must(t,
			unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""),
			unix.Mount("late", source+"/late", "tmpfs", 0, ""),
		)
		stay(t, "comes along", target+"/early", target+"/late")
		for range 2 {
			must(t, unmount(host, target))
		}
		if is, err := mount.Mounted(target); err != nil || is {
			t.Errorf("%s: still mounted, %v", name, err)
		}

		stay(t, name, source+"/early", source+"/late")
	}
}

func TestSharedBindsGoBothWays(t *testing.T) {
	_, source, target := shared(t)
	must(t,
		mount.Bind(source, target, mount.BindOptions{Recursive: true, Shared: true}),
		unix.Mount("ours", target+"/late", "tmpfs", 0, ""),
	)
	stay(t, "shared", source+"/late")
}

// The copies that peers outside have go with what is unmounted.
func TestWhatIsOursGoesFromEverywhere(t *testing.T) {
	host, source, target := shared(t)
	other := host + "/other"
	must(t,
		os.Mkdir(other, 0o755),
		unix.Mount("ours", target, "tmpfs", 0, ""),
		unix.Mount(host+"/ours", other, "", unix.MS_BIND|unix.MS_REC, ""),
		os.Mkdir(target+"/more", 0o755),
		unix.Mount("more", target+"/more", "tmpfs", 0, ""),
	)
	stay(t, "copy", other+"/target/more")
	must(t, mount.UnmountBelow(host+"/ours"))
	if is, err := mount.Mounted(other + "/target"); err != nil || is {
		t.Errorf("a copy is still mounted, %v", err)
	}
	stay(t, "not ours", source+"/early")
}
