package rootfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/mountinfo"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// mappedStore is a store that can map, and users that it can map to.
func mappedStore(t *testing.T) (*Store, *namespace.Users) {
	t.Helper()
	testenv.Root(t)
	c := config(t)
	c.MappedDir = filepath.Join(testenv.ShortDir(t), "mapped")
	if err := os.Chmod(filepath.Dir(c.MappedDir), 0o711); err != nil {
		t.Fatal(err)
	}

	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CheckMapping(); err != nil {
		testenv.Skip(t, "no mapped root file systems: %v", err)
	}

	users := &namespace.Users{
		Path:   filepath.Join(testenv.ShortDir(t), "user"),
		First:  1 << 20,
		Length: 1 << 16,
	}
	if err := namespace.CreateOwned(nil, *users, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := namespace.Unpin(users.Path); err != nil {
			t.Error(err)
		}
	})

	return s, users
}

// owners returns the owners of files.
func owners(t *testing.T, paths ...string) (all []uint32) {
	t.Helper()
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			t.Fatal(err)
		}
		all = append(all, st.Uid)
	}
	return all
}

func TestLayersShowWithTheUsersOfThePodAndKeepTheirOwners(t *testing.T) {
	s, users := mappedStore(t)
	layer := t.TempDir()
	for name, owner := range map[string]int{"root": 0, "web": 1000, "beyond": 1 << 17} {
		path := filepath.Join(layer, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Chown(path, owner, owner)); err != nil {
			t.Fatal(err)
		}
	}

	before, _ := mountinfo.Self()
	img := image.Image{Layers: []string{t.TempDir(), layer}}
	root, err := s.Prepare(t.Context(), "c1", img, users)
	if err != nil {
		t.Fatal(err)
	}

	// One that the namespace does not have is nobody's.
	got := owners(t, root, root+"/root", root+"/web", root+"/beyond")
	if want := []uint32{1 << 20, 1 << 20, 1<<20 + 1000, 65534}; !slices.Equal(got, want) {
		t.Errorf("in the root file system they are of %v, want %v", got, want)
	}

	// A change is made in the writable layer.
	if err := os.Chmod(root+"/web", 0o600); err != nil {
		t.Fatal(err)
	}
	got = owners(t, s.upper("c1")+"/web", layer+"/web")
	if !slices.Equal(got, []uint32{1<<20 + 1000, 1000}) {
		t.Errorf("the changed file is of %v", got)
	}

	if after, _ := mountinfo.Self(); len(after) != len(before)+1 {
		t.Errorf("%d mounts, %d before", len(after), len(before))
	}

	volume(t, s, root)
	if again, err := s.Prepare(t.Context(), "c1", img, users); err != nil || again != root {
		t.Errorf("again: %s, %v", again, err)
	}
	if _, err := s.Prepare(t.Context(), "c1", img, nil); err == nil {
		t.Error("the root file system of a pod is given to the host's users")
	}

	release(t, s, "c1")
}

// volume makes a volume in a directory that the image does not have.
func volume(t *testing.T, s *Store, root string) {
	t.Helper()
	source, target, err := s.Volume("c1", 0, "/deep/data")
	if err != nil || target != "/deep/data" {
		t.Fatal(target, err)
	}
	for _, owner := range owners(t, source, root+"/deep", root+"/deep/data") {
		if owner != 1<<20 {
			t.Errorf("a volume of an image is of %d, not of the pod's root", owner)
		}
	}
}

func TestVolumesShowWithTheUsersOfThePodWhileItIsMade(t *testing.T) {
	s, users := mappedStore(t)
	img := image.Image{Layers: []string{t.TempDir()}}
	if _, err := s.Prepare(t.Context(), "c1", img, users); err != nil {
		t.Fatal(err)
	}

	plain, err := s.Prepare(t.Context(), "c2", img, nil)
	if err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	file := filepath.Join(dir, "hosts")
	if err := errors.Join(os.WriteFile(file, []byte("text"), 0o600), os.Chown(file, 1000, 1000)); err != nil {
		t.Fatal(err)
	}

	for i, source := range []string{dir, file} {
		path, err := s.MapVolume(t.Context(), "c1", i, source, false)
		if err != nil {
			t.Fatal(err)
		}
		if source == dir {
			path += "/hosts"
		}
		if got := owners(t, path, file); !slices.Equal(got, []uint32{1<<20 + 1000, 1000}) {
			t.Errorf("%s is of %v", path, got)
		}
	}

	// overlayfs itself cannot be mapped.
	_, err = s.MapVolume(t.Context(), "c1", 2, plain, false)
	if err == nil || !strings.Contains(err.Error(), "its file system cannot") {
		t.Errorf("error %v", err)
	}
	if _, err := s.MapVolume(t.Context(), "c2", 0, dir, false); err == nil {
		t.Error("a volume is mapped for the host's users")
	}

	for range 2 {
		if err := s.UnmapVolumes(t.Context(), "c1"); err != nil {
			t.Fatal(err)
		}
	}

	if left, err := mount.Below(s.points.volumes("c1")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}

	// One that was not made to the end.
	if _, err := s.MapVolume(t.Context(), "c1", 0, dir, true); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), "c2"); err != nil {
		t.Fatal(err)
	}
	release(t, s, "c1")
}

// sharedVolume is a directory on a host whose mounts are shared, as systemd has them, with a mount below it
// at early, and a directory late.
func sharedVolume(t *testing.T) string {
	t.Helper()
	host := testenv.ShortDir(t)
	dir := host + "/volume"
	t.Cleanup(func() { _ = mount.UnmountBelow(host) })
	if err := errors.Join(
		unix.Mount("host", host, "tmpfs", 0, ""),
		unix.Mount("", host, "", unix.MS_REC|unix.MS_SHARED, ""),
		os.MkdirAll(dir+"/early", 0o755),
		os.MkdirAll(dir+"/late", 0o755),
		unix.Mount("early", dir+"/early", "tmpfs", 0, ""),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

// In the other direction, the end of a container would unmount what the host has below its volume.
func TestWhatIsMountedInAVolumeComesAlongAndStays(t *testing.T) {
	s, users := mappedStore(t)
	dir := sharedVolume(t)
	early, late := dir+"/early", dir+"/late"
	img := image.Image{Layers: []string{t.TempDir()}}
	for way, end := range map[string]func() error{
		"the container is made": func() error { return s.UnmapVolumes(t.Context(), "c1") },
		"it is not made":        func() error { return s.Release(t.Context(), "c1") },
		"the server is killed before it notes it": func() error {
			if err := s.records.Delete("c1"); err != nil {
				return err
			}
			_, err := Open(s.cfg)
			return err
		},
	} {
		if _, err := s.Prepare(t.Context(), "c1", img, users); err != nil {
			t.Fatal(err)
		}

		path, err := s.MapVolume(t.Context(), "c1", 0, dir, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("late", late, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		areMounted(t, way, path, path+"/early", path+"/late")
		if err := end(); err != nil {
			t.Error(err)
		}

		areMounted(t, way, early, late)
		release(t, s, "c1")
		areMounted(t, way, early, late)
		if err := unix.Unmount(late, 0); err != nil {
			t.Error(err)
		}
	}
}

// Release takes the directories away that a volume is mounted on.
func TestVolumesAreMappedBeforeOrAfterARelease(t *testing.T) {
	s, users := mappedStore(t)
	img := image.Image{Layers: []string{t.TempDir()}}
	if _, err := s.Prepare(t.Context(), "c1", img, users); err != nil {
		t.Fatal(err)
	}

	unlock, err := s.locks.Lock(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}

	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.MapVolume(impatient, "c1", 0, t.TempDir(), false); !errors.Is(err, context.Canceled) {
		t.Errorf("mapped while it is released: %v", err)
	}
	if err := s.UnmapVolumes(impatient, "c1"); !errors.Is(err, context.Canceled) {
		t.Errorf("unmapped while it is released: %v", err)
	}

	unlock()
	release(t, s, "c1")
	if _, err := s.MapVolume(t.Context(), "c1", 0, t.TempDir(), false); err == nil {
		t.Error("mapped after the release")
	}
	release(t, s, "c1")
}

func areMounted(t *testing.T, when string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if mounted, err := mount.Mounted(p); err != nil || !mounted {
			t.Errorf("%s: nothing is mounted on %s: %v", when, p, err)
		}
	}
}

func release(t *testing.T, s *Store, id string) {
	t.Helper()
	for range 2 {
		if err := s.Release(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if ids, err := s.IDs(); err != nil || len(ids) > 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
}

func TestMappedRootOfAnEarlierServerIsFoundOrDeleted(t *testing.T) {
	s, users := mappedStore(t)
	img := image.Image{Layers: []string{t.TempDir()}}
	for _, id := range []string{"kept", "lost"} {
		if _, err := s.PrepareReadOnly(t.Context(), id, img, users); err != nil {
			t.Fatal(err)
		}
	}

	if err := s.records.Delete("lost"); err != nil {
		t.Fatal(err)
	}

	next, err := Open(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if ids, err := next.IDs(); err != nil || !slices.Equal(ids, []string{"kept"}) {
		t.Errorf("found: %v, %v", ids, err)
	}
	if mounted, err := mount.Mounted(next.Path("kept")); err != nil || !mounted {
		t.Errorf("not mounted: %v", err)
	}

	release(t, next, "kept")
}

func TestADirectoryThatUsersOfPodsCannotPassIsNamed(t *testing.T) {
	s, _ := mappedStore(t)
	above := filepath.Dir(s.cfg.MappedDir)
	if err := os.Chmod(above, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckMapping(); err == nil || !strings.Contains(err.Error(), above) {
		t.Errorf("error %v", err)
	}
}

func TestAMachineThatHidesPartsOfProcHasNoPodsWithUsers(t *testing.T) {
	s, _ := mappedStore(t)
	err := namespace.InOwnMounts(func() error {
		// A machine whose only /proc is this one.
		if err := unix.Mount("/dev/null", "/proc/version", "", unix.MS_BIND, ""); err != nil {
			return err
		}
		return s.CheckMapping()
	})
	if err == nil || !strings.Contains(err.Error(), "a pod cannot mount proc") {
		t.Errorf("error %v", err)
	}
}
