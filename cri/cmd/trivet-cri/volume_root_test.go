package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// withVolumes changes an image to one with directories, links and VOLUMEs.
func withVolumes(t *testing.T) func(root string, config *v1.Config) {
	return func(root string, config *v1.Config) {
		for _, dir := range []string{"full", "empty", "mounted", "mounted/below"} {
			if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}

		for _, path := range []string{"full/file", "mounted/file"} {
			if err := os.WriteFile(filepath.Join(root, path), []byte("of the image\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}

		for link, to := range map[string]string{
			"to-full": "full",
			"to-proc": "/proc",
			"out":     "../../../../../../etc/cron.d",
		} {
			if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
				t.Fatal(err)
			}
		}

		if err := os.Chmod(filepath.Join(root, "empty"), 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}

		config.Volumes = map[string]struct{}{}
		for _, path := range []string{
			"/full", "/empty/", "/empty/nested", "made/anew", "/mounted", "/mounted/below",
			"/to-full", "/to-proc", "/out/x", "/", "/proc", "/proc/sys", "/a/../proc", "/dev/shm",
			"/sys/fs/cgroup", "/etc/resolv.conf",
		} {
			config.Volumes[path] = struct{}{}
		}
	}
}

func TestVolumesOfAnImageAreWritableAndEndWithTheContainer(t *testing.T) {
	n := newNode(t)
	n.image = pushImage(t, withVolumes(t))
	n.pull()
	pod, box := n.sandbox("volumes", nil)
	data := t.TempDir()
	start := func(name string) string {
		return n.run(pod, box, name, []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.ReadonlyRootfs = true
			c.Mounts = []*runtimeapi.Mount{{HostPath: data, ContainerPath: "/mounted"}}
		})
	}

	c := start("one")
	for _, step := range []struct{ command, want string }{
		{"cat /full/file", "of the image\n"},
		{"echo mine > /full/file && cat /to-full/file", "mine\n"},
		{"touch /empty/x /empty/nested/y /made/anew/z /out/x/w && ls /empty", "nested\nx\n"},
		{"stat -c %a /empty", "1777\n"},
		{"touch /x 2>/dev/null || echo read-only", "read-only\n"},
		{"ls /mounted", ""}, // the pod's, not the image's
		{"cat /proc/1/comm", "sleep\n"},
		{"grep -c ' /proc ' /proc/mounts", "1\n"},
	} {
		if out, code := n.exec(c, step.command); out != step.want || code != 0 {
			t.Errorf("%s: %q, code %d, want %q", step.command, out, code, step.want)
		}
	}

	if _, err := os.Stat("/etc/cron.d/x"); err == nil {
		t.Error("a volume was made outside the container")
	}

	// What one wrote, no other sees.
	other := start("other")
	if out, _ := n.exec(other, "cat /full/file; ls /empty"); out != "of the image\nnested\n" {
		t.Errorf("the next container sees %q", out)
	}

	// It counts as written by the container, and goes with it, also after a crash.
	if _, code := n.exec(c, "head -c 3000000 /dev/zero > /empty/large"); code != 0 {
		t.Fatal("not written")
	}

	stats, err := n.pods.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c})
	if err != nil || stats.Stats.WritableLayer.UsedBytes.Value < 3_000_000 {
		t.Errorf("written: %v, %v", stats, err)
	}

	n.kill()
	n.start()
	for _, id := range []string{c, other} {
		if err := n.removeContainer(id); err != nil {
			t.Fatal(err)
		}
	}

	if left, _ := filepath.Glob(n.dir + "/lib/rootfs/containers/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestManyVolumesOfAnImageAreRefused(t *testing.T) {
	n := newNode(t)
	n.image = pushImage(t, func(_ string, config *v1.Config) {
		config.Volumes = map[string]struct{}{}
		for i := range 300 {
			config.Volumes[fmt.Sprint("/v/", i)] = struct{}{}
		}
	})

	n.pull()
	pod, box := n.sandbox("many", nil)
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "app"},
		Image:    &runtimeapi.ImageSpec{Image: n.image},
		Command:  []string{"true"},
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: box.Linux.SecurityContext.NamespaceOptions,
		}},
	}

	request := &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config}
	_, err := n.pods.CreateContainer(t.Context(), request)
	if err == nil || !strings.Contains(err.Error(), "300 volumes") {
		t.Errorf("error %v does not name the number of volumes", err)
	}
}

// What others read does not depend on the umask that the server was started with.
func TestModesDoNotDependOnTheUmask(t *testing.T) {
	n := newNode(t)
	n.pull()
	n.kill()
	n.endMonitor()
	func() {
		defer unix.Umask(unix.Umask(0o077))

		n.start()
	}()

	pod, box := n.sandbox("umask", nil)
	source := filepath.Join(n.dir, "made-for-a-mount")
	c := n.run(pod, box, "app", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
		c.Mounts = []*runtimeapi.Mount{{HostPath: source, ContainerPath: "/made"}}
	})

	for _, command := range []string{"cat /etc/resolv.conf", "cat /etc/hostname", "ls /made"} {
		if _, code := n.exec(c, command); code != 0 {
			t.Errorf("%s: code %d", command, code)
		}
	}
}
