package nfsvolume_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/nfsvolume"
)

// fakeMount is a mount(8) that writes down how it was called and mounts a tmpfs in the place of the export.
// The kernel of a machine for tests has no NFS.
func fakeMount(t *testing.T, script string) (m *nfsvolume.Mounter, calls func() string, dir string) {
	t.Helper()
	testenv.Root(t)
	root := testenv.ShortDir(t)
	program, log := filepath.Join(root, "mount"), filepath.Join(root, "calls")
	text := "#!/bin/sh\necho \"$*\" >> " + log + "\nfor dir; do :; done\n" + script + "\n"
	for path, data := range map[string]string{program: text, filepath.Join(root, "mount.nfs"): ""} {
		if err := os.WriteFile(path, []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	calls = func() string {
		data, _ := os.ReadFile(log)
		return string(data)
	}

	m = &nfsvolume.Mounter{Program: program, Helpers: []string{root}}
	return m, calls, filepath.Join(root, "pod", nfsvolume.Plugin, "data")
}

const tmpfs = `exec mount -t tmpfs tmpfs "$dir"`

func isMounted(t *testing.T, dir string) bool {
	t.Helper()
	on, err := mount.Mounted(dir)
	if err != nil {
		t.Fatal(err)
	}
	return on
}

func TestMountCallsMountAsKubelet(t *testing.T) {
	for _, c := range []struct {
		export nfsvolume.Export
		want   string // without the directory
	}{
		{nfsvolume.Export{Server: "nfs.example.com", Path: "/srv"}, "-t nfs -- nfs.example.com:/srv"},
		{nfsvolume.Export{Server: "fd00::1", Path: "/srv", ReadOnly: true}, "-t nfs -o ro -- [fd00::1]:/srv"},
		{
			nfsvolume.Export{Server: "-obind", Path: "/etc", Options: []string{"vers=4.2", "hard", "hard"}},
			"-t nfs -o hard,vers=4.2 -- -obind:/etc",
		},
	} {
		m, calls, dir := fakeMount(t, tmpfs)
		for range 2 {
			if err := m.Mount(t.Context(), c.export, dir); err != nil {
				t.Fatal(err)
			}
		}

		if got, want := calls(), c.want+" "+dir+"\n"; got != want {
			t.Errorf("called with %q, want %q, once", got, want)
		}
		if !isMounted(t, dir) {
			t.Error("not mounted")
		}

		for range 2 {
			if err := m.Teardown(t.Context(), filepath.Dir(filepath.Dir(dir))); err != nil {
				t.Error(err)
			}
		}

		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory is still there: %v", err)
		}
	}
}

func TestOptionsOfPersistentVolumes(t *testing.T) {
	pv := &v1.PersistentVolume{Spec: v1.PersistentVolumeSpec{MountOptions: []string{"nfsvers=4"}}}
	pv.Spec.NFS = &v1.NFSVolumeSource{Server: "s", Path: "/p"}
	if e := nfsvolume.OfPersistent(pv, true); strings.Join(e.Options, ",") != "nfsvers=4" || !e.ReadOnly {
		t.Errorf("%+v", e)
	}
	pv.Annotations = map[string]string{v1.MountOptionAnnotation: "soft,timeo=5"}
	if e := nfsvolume.OfPersistent(pv, false); strings.Join(e.Options, ",") != "soft,timeo=5" || e.ReadOnly {
		t.Errorf("%+v", e)
	}
}

func TestMountSaysWhatFailed(t *testing.T) {
	export := nfsvolume.Export{Server: "s", Path: "/p"}
	m, _, dir := fakeMount(t, `echo "mount.nfs: access denied by server" >&2; exit 32`)
	err := m.Mount(t.Context(), export, dir)
	says(t, err, "access denied by server")
	says(t, err, "s:/p")
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed mount leaves its directory: %v", err)
	}

	m.Helpers = []string{t.TempDir()}
	says(t, m.Mount(t.Context(), export, dir), "no mount.nfs")
	bad := []nfsvolume.Export{{Path: "/p"}, {Server: "s", Path: "p"}, {Server: "s\n", Path: "/p"}}
	for _, bad := range bad {
		says(t, m.Mount(t.Context(), bad, dir), "SERVER:/PATH")
	}
}

func says(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want one that says %q", err, text)
	}
}

// rpc.statd is started by mount.nfs and lives on, with its output open.
func TestMountDoesNotWaitForDaemons(t *testing.T) {
	m, calls, dir := fakeMount(t, `sleep 60 & echo $! >> "$(dirname "$0")/calls"; `+tmpfs)
	err := m.Mount(t.Context(), nfsvolume.Export{Server: "s", Path: "/p"}, dir)
	if err != nil || !isMounted(t, dir) {
		t.Fatalf("not mounted: %v", err)
	}

	lines := strings.Fields(calls())
	daemon, err := strconv.Atoi(lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(daemon, unix.SIGKILL); err != nil {
		t.Errorf("the daemon did not live on: %v", err)
	}
	if err := m.Unmount(t.Context(), dir); err != nil {
		t.Error(err)
	}
}

// The mount is in use, as one is whose server is gone.
func TestUnmountOfABusyMountTakesItOutOfSight(t *testing.T) {
	m, _, dir := fakeMount(t, tmpfs)
	if err := m.Mount(t.Context(), nfsvolume.Export{Server: "s", Path: "/p"}, dir); err != nil {
		t.Fatal(err)
	}

	held, err := os.Create(filepath.Join(dir, "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()

	if err := m.Unmount(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}
