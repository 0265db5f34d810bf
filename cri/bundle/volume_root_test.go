package bundle_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

func TestMain(m *testing.M) { os.Exit(nodetest.Main(m)) }

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
	n := nodetest.New(t)
	n.Image = nodetest.PushImage(t, withVolumes(t))
	n.Pull()
	pod := n.Sandbox("volumes", nil)
	data := t.TempDir()
	start := func(name string) string {
		return n.Run(pod, name, []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
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
		{"ls /mounted", ""},
		{"cat /proc/1/comm", "sleep\n"},
		{"grep -c ' /proc ' /proc/mounts", "1\n"},
	} {
		if out, code := n.Exec(c, step.command); out != step.want || code != 0 {
			t.Errorf("%s: %q, code %d, want %q", step.command, out, code, step.want)
		}
	}

	if _, err := os.Stat("/etc/cron.d/x"); err == nil {
		t.Error("a volume was made outside the container")
	}

	// What one wrote, no other sees, and both end.
	other := start("other")
	if out, _ := n.Exec(other, "cat /full/file; ls /empty"); out != "of the image\nnested\n" {
		t.Errorf("the next container sees %q", out)
	}

	for _, id := range []string{c, other} {
		if err := n.RemoveContainer(id); err != nil {
			t.Fatal(err)
		}
	}

	if left, _ := filepath.Glob(n.Dir + "/lib/rootfs/containers/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestVolumesOfAnImageCountAsWrittenByTheContainer(t *testing.T) {
	n := nodetest.New(t)
	n.Image = nodetest.PushImage(t, withVolumes(t))
	n.Pull()
	c := n.Run(n.Sandbox("volumes", nil), "one", []string{"sleep", "1000"}, nil)
	if _, code := n.Exec(c, "head -c 3000000 /dev/zero > /empty/large"); code != 0 {
		t.Fatal("not written")
	}

	stats, err := n.Pods.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c})
	if err != nil || stats.Stats.WritableLayer.UsedBytes.Value < 3_000_000 {
		t.Errorf("written: %v, %v", stats, err)
	}

	// They are removed with the container, also after a crash.
	n.Kill()
	n.Start()
	if err := n.RemoveContainer(c); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(n.Dir + "/lib/rootfs/containers/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What containers read does not depend on the umask that the server was started with.
func TestModesDoNotDependOnTheUmask(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	n.Kill()
	n.EndMonitor()
	umask := unix.Umask(0o077)
	n.Start()
	unix.Umask(umask)

	pod := n.Sandbox("umask", nil)
	source := filepath.Join(n.Dir, "made-for-a-mount")
	c := n.Run(pod, "app", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
		c.Mounts = []*runtimeapi.Mount{{HostPath: source, ContainerPath: "/made"}}
	})

	for _, command := range []string{"cat /etc/resolv.conf", "cat /etc/hostname", "ls /made"} {
		if _, code := n.Exec(c, command); code != 0 {
			t.Errorf("%s: code %d", command, code)
		}
	}
}

func TestArtifactIsMountedAndNotRun(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	artifact := strings.TrimSuffix(n.Image, "busybox:1") + "artifact:1"
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, "application/vnd.oci.empty.v1+json")
	img, err := mutate.Append(img, mutate.Addendum{
		Layer:       static.NewLayer([]byte("weights"), "application/octet-stream"),
		MediaType:   "application/octet-stream",
		Annotations: map[string]string{"org.opencontainers.image.title": "model/weights.bin"},
	})
	if err != nil {
		t.Fatal(err)
	}

	nodetest.WriteImage(t, artifact, img)
	spec := &runtimeapi.ImageSpec{Image: artifact}
	if _, err := n.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: spec}); err != nil {
		t.Fatal(err)
	}

	pod := n.Sandbox("artifact", nil)
	command := []string{"cat", "/whole/model/weights.bin", "/part/weights.bin"}
	id := n.Run(pod, "reader", command, func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{
			{ContainerPath: "/whole", Image: spec, Readonly: true},
			{ContainerPath: "/part", Image: spec, Readonly: true, ImageSubPath: "model"},
		}
	})

	n.AwaitExit(id)
	log, err := os.ReadFile(n.Dir + "/logs/reader.log")
	if err != nil || strings.Count(string(log), "weights") != 2 {
		t.Errorf("log %q, %v", log, err)
	}

	config := n.Container(pod, "main", nil)
	config.Image = spec
	_, err = n.CreateContainer(t.Context(), pod, config)
	if err == nil || !strings.Contains(err.Error(), "OCI artifact") {
		t.Errorf("container of an artifact: %v", err)
	}
}
