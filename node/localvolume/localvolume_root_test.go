package localvolume_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/localvolume"
)

func TestMain(m *testing.M) { os.Exit(testenv.OwnMounts(m)) }

// node is a root directory of kubelet, with a mounter that can be forgotten.
type node struct {
	t    *testing.T
	root string
	*localvolume.Mounter
}

func newNode(t *testing.T) *node {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "mkfs.ext4", "e2fsprogs")
	n := &node{t: t, root: t.TempDir()}
	n.restart()
	t.Cleanup(func() {
		if err := mount.UnmountBelow(n.root); err != nil {
			t.Error(err)
		}
	})
	return n
}

// restart is what is left of a mounter after a kill -9: what is on disk.
func (n *node) restart() { n.Mounter = localvolume.New(n.root) }

func (n *node) volumes(pod string) string { return filepath.Join(n.root, "pods", pod, "volumes") }

func (n *node) dir(pod, name string) string {
	return filepath.Join(n.volumes(pod), localvolume.Plugin, name)
}

func (n *node) point(name string) string {
	return filepath.Join(n.root, "plugins/kubernetes.io/local-volume/mounts", name)
}

func (n *node) mount(v localvolume.Volume, pod string) {
	n.t.Helper()
	if err := n.Mount(context.Background(), v, n.dir(pod, v.Name)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) teardown(pod string) {
	n.t.Helper()
	if err := n.Teardown(context.Background(), n.volumes(pod)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) isMounted(path string, want bool) {
	n.t.Helper()
	is, err := mount.Mounted(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Fatal(err)
	}
	if is != want {
		n.t.Errorf("%s is mounted: %t, want %t", path, is, want)
	}
}

// device is an empty block device of 32 MiB.
func device(t *testing.T) string {
	t.Helper()
	return deviceOf(t, filepath.Join(t.TempDir(), "disk"), 32<<20)
}

// deviceOf is a block device of that many bytes that is the file.
func deviceOf(t *testing.T, file string, size int64) string {
	t.Helper()
	losetup := testenv.Program(t, "losetup", "mount")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}

	path := run(t, losetup, "--find", "--show", file)
	t.Cleanup(func() { run(t, losetup, "--detach", path) })
	return path
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", program, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestAnEmptyDeviceGetsAFileSystemThatOutlivesItsPods(t *testing.T) {
	n := newNode(t)
	v := localvolume.Volume{Name: "pv", Path: device(t), Options: []string{"noatime"}}

	n.mount(v, "a")
	if err := os.WriteFile(filepath.Join(n.dir("a", "pv"), "data"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	is := run(t, "findmnt", "-no", "FSTYPE,OPTIONS", n.point("pv"))
	if !strings.HasPrefix(is, "ext4 ") || !strings.Contains(is, "noatime") {
		t.Errorf("the device is mounted as %q, want ext4 with noatime", is)
	}

	n.teardown("a")
	n.isMounted(n.point("pv"), false)

	n.mount(v, "b")
	data, err := os.ReadFile(filepath.Join(n.dir("b", "pv"), "data"))
	if err != nil || string(data) != "kept" {
		t.Errorf("the next pod reads %q, %v", data, err)
	}
	n.teardown("b")
}

func TestTheLastPodTakesTheDeviceDown(t *testing.T) {
	n := newNode(t)
	v := localvolume.Volume{Name: "pv", Path: device(t)}

	var pods sync.WaitGroup
	for _, pod := range []string{"a", "b", "c"} {
		pods.Go(func() {
			if err := n.Mount(context.Background(), v, n.dir(pod, "pv")); err != nil {
				t.Error(err)
			}
		})
	}
	pods.Wait()

	n.restart()
	n.mount(v, "a")
	n.teardown("a")
	n.teardown("b")
	n.isMounted(n.point("pv"), true)
	n.isMounted(n.dir("c", "pv"), true)

	n.restart()
	n.teardown("c")
	n.teardown("c")
	n.isMounted(n.point("pv"), false)
	if _, err := os.Stat(n.point("pv")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory of the device's mount is left: %v", err)
	}
}

func TestAnInterruptedTeardownIsDoneAgain(t *testing.T) {
	n := newNode(t)
	v := localvolume.Volume{Name: "pv", Path: device(t)}
	n.mount(v, "a")

	// Killed after the first unmount.
	if err := mount.Unmount(n.dir("a", "pv")); err != nil {
		t.Fatal(err)
	}
	n.restart()
	n.teardown("a")
	n.isMounted(n.point("pv"), false)
}

func TestADirectoryIsBoundAndNothingElseIsMounted(t *testing.T) {
	n := newNode(t)
	v := localvolume.Volume{Name: "p[v]*", Path: t.TempDir(), ReadOnly: true}

	n.mount(v, "a")
	n.isMounted(n.point(v.Name), false)
	if err := os.WriteFile(filepath.Join(n.dir("a", v.Name), "data"), nil, 0o600); err == nil {
		t.Error("a read-only volume was written to")
	}

	n.teardown("a")
	if _, err := os.Stat(n.dir("a", v.Name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}

func TestOfOneVolumeEachPodReadsOrWrites(t *testing.T) {
	n := newNode(t)
	v := localvolume.Volume{Name: "pv", Path: device(t)}
	n.mount(v, "writer")
	v.ReadOnly = true
	n.mount(v, "reader")

	if err := os.WriteFile(filepath.Join(n.dir("writer", "pv"), "data"), []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(n.dir("reader", "pv"), "data"), nil, 0o600); err == nil {
		t.Error("the reader has written")
	}

	n.teardown("reader")
	n.teardown("writer")
}

func TestWhatCannotBeMountedIsNamed(t *testing.T) {
	n := newNode(t)
	empty, other := device(t), device(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	swap := device(t)
	run(t, "mkswap", swap)
	n.mount(localvolume.Volume{Name: "taken", Path: other}, "a")

	type volume = localvolume.Volume
	for name, c := range map[string]struct {
		volume volume
		want   string
	}{
		"not there":     {volume{Name: "pv", Path: "/no/such"}, `"pv": stat /no/such`},
		"a file":        {volume{Name: "pv", Path: file}, "neither a directory nor a block device"},
		"empty":         {volume{Name: "pv", Path: empty, ReadOnly: true}, "has no file system"},
		"a path":        {volume{Name: "pv", Path: empty, FSType: "../sh"}, "no type of a file system"},
		"no such mkfs":  {volume{Name: "pv", Path: empty, FSType: "nofs"}, "nofs"},
		"other content": {volume{Name: "pv", Path: swap}, "mount " + swap},
		"other device":  {volume{Name: "taken", Path: empty}, "is mounted on"},
	} {
		err := n.Mount(context.Background(), c.volume, n.dir("b", c.volume.Name))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		n.isMounted(n.point("pv"), false)
		n.teardown("b")
	}

	n.isMounted(n.point("taken"), true)
	n.teardown("a")
}

func TestOptionsAndTypeAreThoseOfTheVolume(t *testing.T) {
	pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}}
	pv.Spec.Local = &v1.LocalVolumeSource{Path: "/dev/sda", FSType: new("xfs")}
	pv.Spec.MountOptions = []string{"noatime"}

	if v := localvolume.Of(pv, false); v.FSType != "xfs" || strings.Join(v.Options, " ") != "noatime" {
		t.Errorf("of the spec: %+v", v)
	}

	pv.Annotations = map[string]string{v1.MountOptionAnnotation: "ro,sync"}
	if v := localvolume.Of(pv, true); strings.Join(v.Options, " ") != "ro sync" || !v.ReadOnly {
		t.Errorf("of the annotation: %+v", v)
	}
}
