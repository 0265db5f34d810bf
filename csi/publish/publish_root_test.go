package publish_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
)

func TestKilledDriverFindsVolumesInUse(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	var volumes []volume.Volume
	for _, r := range nodetest.Requests(32 << 20) {
		v := n.MustCreate(r)
		n.Write(v, n.Use(v, "one"))
		volumes = append(volumes, v)
	}

	n.Kill()
	if report := n.Start(); report.Recovered != len(volumes) ||
		len(n.Found.Unstaged)+len(report.Damaged)+len(report.Unreadable) > 0 {
		t.Errorf("report %+v", report)
	}

	for _, v := range volumes {
		n.CheckRead(v, n.Target(v.ID, "one"))
		n.CheckRead(v, n.Use(v, "two"))
		if err := n.Delete(t.Context(), v.ID); !errors.Is(err, volume.ErrInUse) {
			t.Errorf("deleting %s in use: %v", v.Name, err)
		}

		n.Remove(v.ID, "one", "two")
	}
}

func TestRebootBringsVolumesBack(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	var volumes []volume.Volume
	for _, r := range nodetest.Requests(32 << 20) {
		v := n.MustCreate(r)
		n.Write(v, n.Use(v, "one"))
		volumes = append(volumes, v)
	}

	if report := n.Reboot(); report.Recovered != len(volumes) || len(report.Damaged) > 0 {
		t.Errorf("report %+v", report)
	}

	for _, v := range volumes {
		if err := n.Publish(t.Context(), v.ID, n.Target(v.ID, "two"), publish.Use{
			Access: v.Access,
		}); !errors.Is(err, volume.ErrNotStaged) {
			t.Errorf("publishing before staging: %v", err)
		}

		n.CheckRead(v, n.Use(v, "two"))
		n.Remove(v.ID, "one", "two")
	}
}

func TestPublishRules(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 16 << 20})
	ctx, stage := t.Context(), n.StagePath(v.ID)
	fs := publish.Use{Access: volume.Filesystem}
	single := publish.Use{Access: volume.Filesystem, SingleWriter: true}
	readOnly := publish.Use{Access: volume.Filesystem, ReadOnly: true}
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}

	check("publish before stage", n.Publish(ctx, v.ID, n.Target(v.ID, "a"), fs), volume.ErrNotStaged)
	check("stage raw", n.Stage(ctx, v.ID, stage, publish.Use{Access: volume.Block}), volume.ErrInvalid)
	check("stage", n.Stage(ctx, v.ID, stage, fs), nil)
	check("stage again", n.Stage(ctx, v.ID, stage, fs), nil)
	check("stage elsewhere", n.Stage(ctx, v.ID, stage+"2", fs), volume.ErrInUse)
	check("publish", n.Publish(ctx, v.ID, n.Target(v.ID, "a"), fs), nil)
	check("publish again", n.Publish(ctx, v.ID, n.Target(v.ID, "a"), fs), nil)
	check("publish read-only there", n.Publish(ctx, v.ID, n.Target(v.ID, "a"), readOnly), volume.ErrConflict)
	check("publish for a single writer", n.Publish(ctx, v.ID, n.Target(v.ID, "b"), single), volume.ErrInUse)
	check("publish read-only", n.Publish(ctx, v.ID, n.Target(v.ID, "b"), readOnly), nil)
	if err := os.WriteFile(filepath.Join(n.Target(v.ID, "b"), "f"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to the read-only target: %v", err)
	}
	if err := os.WriteFile(filepath.Join(n.Target(v.ID, "a"), "f"), nil, 0o600); err != nil {
		t.Error(err)
	}

	for range 2 {
		check("unpublish", n.Unpublish(ctx, v.ID, n.Target(v.ID, "b")), nil)
	}

	n.Remove(v.ID, "a")
	check("stage of nothing", n.Stage(ctx, v.ID, stage, fs), volume.ErrNotFound)
}

// Somebody emptied the state directory while volumes were in use: nothing is mounted twice, nothing is lost.
func TestLostStateDirectory(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	var volumes []volume.Volume
	for _, r := range nodetest.Requests(32 << 20) {
		v := n.MustCreate(r)
		n.Write(v, n.Use(v, "one"))
		volumes = append(volumes, v)
	}

	n.Kill()
	if err := os.RemoveAll(filepath.Join(n.Dir, "run")); err != nil {
		t.Fatal(err)
	}

	n.Start()
	for _, v := range volumes {
		if v.Backend == "image" && v.Access == volume.Filesystem {
			if err := n.Delete(t.Context(), v.ID); !errors.Is(err, volume.ErrInUse) {
				t.Errorf("deleting %s, which is mounted: %v", v.Name, err)
			}
		}

		n.CheckRead(v, n.Use(v, "two"))
		n.Remove(v.ID, "one", "two")
	}
}

func TestFailedPublishLeavesNoTrace(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 16 << 20})
	u := publish.Use{Access: volume.Filesystem, SingleWriter: true}
	if err := n.Stage(t.Context(), v.ID, n.StagePath(v.ID), u); err != nil {
		t.Fatal(err)
	}

	file := n.Target(v.ID, "a")
	err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o750), os.WriteFile(file, nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Publish(t.Context(), v.ID, file, u); err == nil {
		t.Fatal("a directory was mounted on a file")
	}
	if err := n.Publish(t.Context(), v.ID, n.Target(v.ID, "b"), u); err != nil {
		t.Errorf("the only pod: %v", err)
	}
	if err := n.Publish(t.Context(), v.ID, n.Target(v.ID, "c"), u); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("a second one: %v", err)
	}

	n.Remove(v.ID, "b")
}

func TestReadOnlyByMountOptionMayBeRepeated(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	for _, r := range []volume.Request{
		{Name: "b", Required: 16 << 20},
		{Name: "e", Required: 16 << 20, Backend: "image"},
	} {
		v := n.MustCreate(r)
		u := publish.Use{Access: volume.Filesystem, Options: []string{"ro"}}
		for range 2 {
			err := errors.Join(
				n.Stage(t.Context(), v.ID, n.StagePath(v.ID), u),
				n.Publish(t.Context(), v.ID, n.Target(v.ID, "a"), u),
			)
			if err != nil {
				t.Errorf("%s: %v", r.Name, err)
			}
		}

		n.Remove(v.ID, "a")
	}
}

// kubelet binds the device from where it is published to a path of its own, and asks there.
func TestStatsOfADeviceThatIsBoundElsewhere(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	v, other := n.MustCreate(volume.Request{Name: "raw", Required: 16 << 20, Access: volume.Block}),
		n.MustCreate(volume.Request{Name: "other", Required: 16 << 20, Access: volume.Block})
	published, bound := n.Use(v, "pod"), filepath.Join(n.Dir, "volumeDevices/pv/dev/uid")
	n.Use(other, "pod")
	err := errors.Join(os.MkdirAll(filepath.Dir(bound), 0o750), os.WriteFile(bound, nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(published, bound, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if _, usage, err := n.Stats(v.ID, bound); err != nil || usage.Total != v.Size {
		t.Errorf("usage %+v, %v", usage, err)
	}
	if _, _, err := n.Stats(other.ID, bound); !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("of another volume: %v", err)
	}
	if err := unix.Unmount(bound, 0); err != nil {
		t.Fatal(err)
	}

	n.Remove(v.ID, "pod")
	n.Remove(other.ID, "pod")
}

func TestPathsFromOutsideStayInside(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 16 << 20})
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.Mkdir(victim, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(victim), filepath.Join(n.Dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(n.Dir, "last")); err != nil {
		t.Fatal(err)
	}

	fs := publish.Use{Access: volume.Filesystem}
	n.Use(v, "pod")
	for _, path := range []string{
		victim, n.Dir, n.Dir + "/link/victim", n.Dir + "/last", n.Dir + "/../x", n.Dir + "/a/../../x",
		"relative", "", "/", n.Dir + "/a\x00b",
	} {
		if err := n.Publish(t.Context(), v.ID, path, fs); !errors.Is(err, target.ErrOutside) {
			t.Errorf("publish on %q: %v", path, err)
		}
		if err := n.Unpublish(t.Context(), v.ID, path); !errors.Is(err, target.ErrOutside) {
			t.Errorf("unpublish from %q: %v", path, err)
		}
	}

	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}

	for _, id := range []string{"", "..", "../../etc", "a/b", "A", "a\x00", "-a"} {
		if err := n.Delete(t.Context(), id); !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("delete %q: %v", id, err)
		}
	}

	for _, left := range n.List("", 0) {
		n.Remove(left.ID, "pod")
	}
}

// The files of a volume belong to the group of who uses it, those that he makes included, and it is not
// looked through again for the same group.
func TestFilesBelongToTheGroupOfTheMount(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	for _, r := range []volume.Request{
		{Name: "b", Required: 32 << 20, Backend: "btrfs"},
		{Name: "x", Required: 320 << 20, Backend: "btrfs", FSType: "xfs"},
	} {
		v := n.MustCreate(r)
		in := func(pod, name string) string { return filepath.Join(n.Target(v.ID, pod), name) }
		use := func(pod string, group int64, readOnly bool) {
			t.Helper()
			u := publish.Use{Access: v.Access, ReadOnly: readOnly, Group: &group}
			for range 2 {
				if err := n.Publish(t.Context(), v.ID, n.Target(v.ID, pod), u); err != nil {
					t.Fatal(err)
				}
			}
		}

		if err := n.Stage(t.Context(), v.ID, n.StagePath(v.ID), publish.Use{Access: v.Access}); err != nil {
			t.Fatal(err)
		}
		use("one", 2000, false)
		if err := errors.Join(os.Mkdir(in("one", "d"), 0o750), os.WriteFile(in("one", "d/f"), nil, 0o640),
			os.Chown(in("one", "d/f"), 1, 7)); err != nil {
			t.Fatal(err)
		}
		checkGroup(t, in("one", "d"), 2000, 0o2750)

		// One who can only read changes nothing, and neither does the same group.
		use("reader", 3000, true)
		use("two", 2000, false)
		checkGroup(t, in("two", "d"), 2000, 0o2750)
		checkGroup(t, in("two", "d/f"), 7, 0o640)

		use("three", 3000, false)
		checkGroup(t, in("three", ""), 3000, 0o2775)
		checkGroup(t, in("three", "d"), 3000, 0o2770)
		checkGroup(t, in("three", "d/f"), 3000, 0o660)
		n.Remove(v.ID, "one", "reader", "two", "three")
	}
}

func checkGroup(t *testing.T, path string, group, mode uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Gid != group || st.Mode&0o7777 != mode {
		t.Errorf("%s has group %d and mode %o, want %d and %o", path, st.Gid, st.Mode&0o7777, group, mode)
	}
}
