package volume_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/volume"
)

func TestAnEmptyDirBelongsToItsContainersOnceItIsMade(t *testing.T) {
	m, _ := newMounter(t, &api{})
	p := pod(v1.Volume{Name: "disk", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		v1.Volume{
			Name:         "mem",
			VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}},
		})

	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: new(int64(1234))}
	made := setup(t, m, p)
	for _, v := range made.ByName {
		must(t, os.Chmod(v.Path, 0o700))
		must(t, os.WriteFile(filepath.Join(v.Path, "private"), nil, 0o600))
	}

	setup(t, m, p)
	for name, v := range made.ByName {
		mode, _, _ := stat(t, v.Path)
		file, _, _ := stat(t, filepath.Join(v.Path, "private"))
		if mode.Perm() != 0o700 || file.Perm() != 0o600 {
			t.Errorf("%s: directory %v, file in it %v: a container had made them 0700 and 0600",
				name, mode, file)
		}
	}

	// A reboot takes what is in memory.
	must(t, mount.UnmountBelow(made.ByName["mem"].Path))
	setup(t, m, p)
	if mounted, err := mount.Mounted(made.ByName["mem"].Path); !mounted || err != nil {
		t.Errorf("the one in memory is mounted again: %v, %v", mounted, err)
	}
	if mode, _, gid := stat(t, made.ByName["mem"].Path); mode.Perm() != 0o777 || gid != 1234 {
		t.Errorf("the one in memory has mode %v, group %d after a reboot", mode, gid)
	}

	must(t, m.Teardown(t.Context(), p.UID))
}

func TestMemoryVolumesHaveTheSizeOfWhatMayUseThem(t *testing.T) {
	root := testenv.ShortDir(t)
	testenv.Root(t)
	allocatable := v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi")}
	m := volume.New(volume.Config{
		Root:    root,
		Node:    podenv.Node{Name: "n", Allocatable: allocatable},
		Objects: &api{},
		Tokens:  &api{},
		Log:     slog.New(slog.DiscardHandler),
	})

	for _, c := range []struct {
		what        string
		limit, own  string
		wantMiBytes uint64
	}{
		{"without a limit", "", "", 64},
		{"with a limit", "16Mi", "", 16},
		{"with a limit of more than the node has", "1Gi", "", 64},
		{"in a pod with a limit", "", "8Mi", 8},
		{"in a pod with a limit of more than the node has", "", "1Gi", 64},
	} {
		source := &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}
		if c.limit != "" {
			source.SizeLimit = new(resource.MustParse(c.limit))
		}

		p := pod(v1.Volume{Name: "mem", VolumeSource: v1.VolumeSource{EmptyDir: source}})
		if c.own != "" {
			limits := v1.ResourceList{v1.ResourceMemory: resource.MustParse(c.own)}
			p.Spec.Containers[0].Resources.Limits = limits
		}

		var st unix.Statfs_t
		must(t, unix.Statfs(setup(t, m, p).ByName["mem"].Path, &st))
		if got := st.Blocks * uint64(st.Bsize) >> 20; got != c.wantMiBytes {
			t.Errorf("%s: %d MiB, want %d", c.what, got, c.wantMiBytes)
		}

		must(t, m.Teardown(t.Context(), p.UID))
	}
}

// A container that can write to the volume may put there what it likes, at any moment.
func TestAnEnvFileMustBeASmallFile(t *testing.T) {
	m, _ := newMounter(t, &api{})
	p := pod(v1.Volume{Name: "disk", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
	dir := setup(t, m, p).ByName["disk"].Path
	must(t, os.WriteFile(filepath.Join(dir, "env"), []byte("A=1\n"), 0o600))
	if got, err := m.EnvFile(p, "disk", "env"); err != nil || got["A"] != "1" {
		t.Errorf("variables %v, %v", got, err)
	}

	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, 64<<10+1), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "directory"), 0o700))
	must(t, os.Symlink("/etc/hostname", filepath.Join(dir, "out")))
	for _, name := range []string{"fifo", "large", "directory", "out", "none"} {
		answer := make(chan error, 1)
		go func() { _, err := m.EnvFile(p, "disk", name); answer <- err }()
		select {
		case err := <-answer:
			if err == nil {
				t.Errorf("%s is accepted", name)
			}

		case <-time.After(time.Minute):
			t.Fatalf("%s is waited for", name)
		}
	}

	must(t, m.Teardown(t.Context(), p.UID))
}
