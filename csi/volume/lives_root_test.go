package volume_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/volume"
)

func all(size int64) []volume.Request {
	return []volume.Request{
		{Name: "b", Required: size, Backend: "btrfs", Access: volume.Filesystem},
		{Name: "cow", Required: size, Backend: "btrfs", Access: volume.Filesystem, NoCOW: new(false)},
		{Name: "e", Required: size, Backend: "image", FSType: "ext4", Access: volume.Filesystem},
		{Name: "raw", Required: size, Backend: "image", Access: volume.Block},
	}
}

// write puts a sign of life on the volume seen at target, read gets it back.
func write(t *testing.T, v volume.Volume, target string) {
	t.Helper()
	path := target
	if v.Access == volume.Filesystem {
		path = filepath.Join(target, "sign")
	}

	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}

	_, err = f.WriteString("life of " + v.Name)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, v volume.Volume, target string) {
	t.Helper()
	path := target
	if v.Access == volume.Filesystem {
		path = filepath.Join(target, "sign")
	}

	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	want := "life of " + v.Name
	got := make([]byte, len(want))
	if _, err := f.Read(got); err != nil || string(got) != want {
		t.Errorf("volume %s holds %q, %v", v.Name, got, err)
	}
}

func TestKilledDriverFindsVolumesInUse(t *testing.T) {
	n := newNode(t, 1<<30)
	var volumes []volume.Volume
	for _, r := range all(32 << 20) {
		v := n.create(r)
		write(t, v, n.publish(v, "one"))
		volumes = append(volumes, v)
	}

	n.kill()
	if report := n.start(); report.Recovered != len(volumes) ||
		len(report.Unstaged)+len(report.Damaged)+len(report.Torn) > 0 {
		t.Errorf("report %+v", report)
	}

	for _, v := range volumes {
		read(t, v, n.target(v.ID, "one"))
		read(t, v, n.publish(v, "two"))
		if err := n.Delete(t.Context(), v.ID); !errors.Is(err, volume.ErrInUse) {
			t.Errorf("deleting %s in use: %v", v.Name, err)
		}

		n.remove(v.ID, "one", "two")
	}
}

func TestRebootBringsVolumesBack(t *testing.T) {
	n := newNode(t, 1<<30)
	var volumes []volume.Volume
	for _, r := range all(32 << 20) {
		v := n.create(r)
		write(t, v, n.publish(v, "one"))
		volumes = append(volumes, v)
	}

	if report := n.reboot(); report.Recovered != len(volumes) || len(report.Damaged) > 0 {
		t.Errorf("report %+v", report)
	}

	for _, v := range volumes {
		if err := n.Publish(t.Context(), v.ID, n.target(v.ID, "two"), volume.Use{
			Access: v.Access,
		}); !errors.Is(err, volume.ErrNotStaged) {
			t.Errorf("publishing before staging: %v", err)
		}

		read(t, v, n.publish(v, "two"))
		n.remove(v.ID, "one", "two")
	}
}

func TestHundredVolumesAtOnce(t *testing.T) {
	n := newNode(t, 4<<30)
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			r := volume.Request{Name: fmt.Sprintf("v%d", i), Required: 16 << 20, Access: volume.Filesystem}
			if i%10 == 0 {
				r.Backend = "image"
			}

			v, err := n.Create(t.Context(), r)
			if err != nil {
				t.Error(err)
				return
			}

			u, target := volume.Use{Access: v.Access}, n.target(v.ID, "pod")
			for _, step := range []func() error{
				func() error { return n.Stage(t.Context(), v.ID, n.stagePath(v.ID), u) },
				func() error { return n.Publish(t.Context(), v.ID, target, u) },
				func() error { return os.WriteFile(filepath.Join(target, "f"), []byte(v.ID), 0o600) },
				func() error { return n.Unpublish(t.Context(), v.ID, target) },
				func() error { return n.Unstage(t.Context(), v.ID, n.stagePath(v.ID)) },
				func() error { return n.Delete(t.Context(), v.ID) },
			} {
				if err := step(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}

	group.Wait()
	if left := n.List("", 0); len(left) > 0 {
		t.Errorf("%d volumes are left", len(left))
	}

	n.kill()
	entries, err := os.ReadDir(filepath.Join(n.dir, "volumes"))
	if err != nil || len(entries) > 0 {
		t.Errorf("records left: %v %v", entries, err)
	}
}

func TestTwoClaimsForTheLastSpace(t *testing.T) {
	n := newNode(t, 1<<30)
	free, err := n.Available(volume.Request{Backend: "btrfs", Access: volume.Filesystem})
	if err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	results := map[bool]int{}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			_, err := n.Create(t.Context(), volume.Request{
				Name:     fmt.Sprint("v", i),
				Required: free * 2 / 3,
				Backend:  "btrfs",
				Access:   volume.Filesystem,
			})
			if err != nil && !errors.Is(err, volume.ErrFull) {
				t.Error(err)
			}

			mu.Lock()
			defer mu.Unlock()

			results[err == nil]++
		})
	}

	group.Wait()
	if results[true] != 1 || results[false] != 7 {
		t.Errorf("results %v, want one success", results)
	}
}

func TestPublishRules(t *testing.T) {
	n := newNode(t, 1<<30)
	v := n.create(volume.Request{Name: "v", Required: 16 << 20})
	ctx, stage := t.Context(), n.stagePath(v.ID)
	fs := volume.Use{Access: volume.Filesystem}
	single := volume.Use{Access: volume.Filesystem, SingleWriter: true}
	readOnly := volume.Use{Access: volume.Filesystem, ReadOnly: true}
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}

	check("publish before stage", n.Publish(ctx, v.ID, n.target(v.ID, "a"), fs), volume.ErrNotStaged)
	check("stage raw", n.Stage(ctx, v.ID, stage, volume.Use{Access: volume.Block}), volume.ErrInvalid)
	check("stage", n.Stage(ctx, v.ID, stage, fs), nil)
	check("stage again", n.Stage(ctx, v.ID, stage, fs), nil)
	check("stage elsewhere", n.Stage(ctx, v.ID, stage+"2", fs), volume.ErrInUse)
	check("publish", n.Publish(ctx, v.ID, n.target(v.ID, "a"), fs), nil)
	check("publish again", n.Publish(ctx, v.ID, n.target(v.ID, "a"), fs), nil)
	check("publish read-only there", n.Publish(ctx, v.ID, n.target(v.ID, "a"), readOnly), volume.ErrConflict)
	check("publish for a single writer", n.Publish(ctx, v.ID, n.target(v.ID, "b"), single), volume.ErrInUse)
	check("publish read-only", n.Publish(ctx, v.ID, n.target(v.ID, "b"), readOnly), nil)
	if err := os.WriteFile(filepath.Join(n.target(v.ID, "b"), "f"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to the read-only target: %v", err)
	}
	if err := os.WriteFile(filepath.Join(n.target(v.ID, "a"), "f"), nil, 0o600); err != nil {
		t.Error(err)
	}

	for range 2 {
		check("unpublish", n.Unpublish(ctx, v.ID, n.target(v.ID, "b")), nil)
	}

	n.remove(v.ID, "a")
	check("stage of nothing", n.Stage(ctx, v.ID, stage, fs), volume.ErrNotFound)
}

func TestTornRecordIsSetAsideAndItsDataKept(t *testing.T) {
	n := newNode(t, 1<<30)
	good, bad := n.create(volume.Request{
		Name:     "good",
		Required: 16 << 20,
	}), n.create(volume.Request{Name: "bad", Required: 16 << 20, Backend: "image"})

	n.kill()
	if err := os.WriteFile(filepath.Join(n.dir, "volumes", bad.ID+".json"), []byte(`{"version":`), 0o600); err != nil {
		t.Fatal(err)
	}

	report := n.start()
	if len(report.Torn) != 1 || report.Recovered != 1 {
		t.Errorf("report %+v", report)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "images", bad.ID+".img")); err != nil {
		t.Errorf("data of the torn record: %v", err)
	}
	if left := n.List("", 0); len(left) != 1 || left[0].ID != good.ID {
		t.Errorf("volumes %v", left)
	}

	err := n.Stage(t.Context(), bad.ID, filepath.Join(n.dir, "stage"), volume.Use{Access: volume.Filesystem})
	if !errors.Is(err, volume.ErrDamaged) || !strings.Contains(err.Error(), "delete volume "+bad.ID) {
		t.Errorf("stage of the volume: %v, want an error that names the way out", err)
	}
}

func TestListGivesEachVolumeOnce(t *testing.T) {
	n := newNode(t, 4<<30)
	for i := range 25 {
		n.create(volume.Request{Name: fmt.Sprint("v", i), Required: 1 << 20})
	}

	var ids []string
	for after := ""; ; {
		page := n.List(after, 10)
		if len(page) == 0 {
			break
		}

		for _, v := range page {
			ids = append(ids, v.ID)
		}

		after = ids[len(ids)-1]
	}

	if len(ids) != 25 || !slices.IsSorted(ids) {
		t.Errorf("listed %d: %v", len(ids), ids)
	}
}

// Somebody emptied the state directory while volumes were in use: nothing is mounted twice, nothing is lost.
func TestLostStateDirectory(t *testing.T) {
	n := newNode(t, 1<<30)
	var volumes []volume.Volume
	for _, r := range all(32 << 20) {
		v := n.create(r)
		write(t, v, n.publish(v, "one"))
		volumes = append(volumes, v)
	}

	n.kill()
	if err := os.RemoveAll(filepath.Join(n.dir, "run")); err != nil {
		t.Fatal(err)
	}

	n.start()
	for _, v := range volumes {
		if v.Backend == "image" && v.Access == volume.Filesystem {
			if err := n.Delete(t.Context(), v.ID); !errors.Is(err, volume.ErrInUse) {
				t.Errorf("deleting %s, which is mounted: %v", v.Name, err)
			}
		}

		read(t, v, n.publish(v, "two"))
		n.remove(v.ID, "one", "two")
	}
}

// After a power loss a volume may be there whose intent never reached the disk.
func TestStrayVolumesAreRemovedOnlyIfEmpty(t *testing.T) {
	n := newNode(t, 1<<30)
	empty, full, torn := n.create(volume.Request{
		Name:     "empty",
		Required: 16 << 20,
	}), n.create(volume.Request{Name: "full", Required: 16 << 20}),
		n.create(volume.Request{Name: "torn", Required: 16 << 20})

	write(t, full, n.publish(full, "one"))
	if err := errors.Join(n.Unpublish(t.Context(), full.ID, n.target(full.ID, "one")), n.Unstage(t.Context(), full.ID, n.stagePath(full.ID))); err != nil {
		t.Fatal(err)
	}

	n.kill()
	for _, v := range []volume.Volume{empty, full} {
		if err := os.Remove(filepath.Join(n.dir, "volumes", v.ID+".json")); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.Truncate(filepath.Join(n.dir, "volumes", torn.ID+".json"), 9); err != nil {
		t.Fatal(err)
	}

	want := []string{"btrfs " + full.ID, "btrfs " + torn.ID}
	slices.Sort(want)

	// the second start does not see the torn record any more
	for range 2 {
		report := n.start()
		if slices.Sort(report.Strays); !slices.Equal(report.Strays, want) {
			t.Errorf("strays %v, want %v", report.Strays, want)
		}

		n.kill()
	}
}
