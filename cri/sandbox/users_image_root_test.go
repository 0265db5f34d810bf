package sandbox_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

func TestVolumesOfImagesAreThoseOfThePodsUsers(t *testing.T) {
	n := withUsers(t)
	n.Image = nodetest.PushImage(t, func(root string, config *v1.Config) {
		config.Volumes = map[string]struct{}{"/var/lib/app": {}, "/etc": {}}
		config.User = "web"
		home := filepath.Join(root, "home")
		if err := os.Mkdir(home, 0o755); err != nil {
			t.Fatal(err)
		}
	})
	n.Pull()
	pod := n.Sandbox("images", nodetest.OwnUsers(1<<20))
	app := n.Run(pod, "app", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.ReadonlyRootfs = true

		// Agents map all mounts of a pod alike.
		c.Mounts = []*runtimeapi.Mount{{
			ContainerPath: "/image",
			Image:         &runtimeapi.ImageSpec{Image: n.Image},
			Readonly:      true,
			UidMappings:   nodetest.Mappings(1 << 20),
			GidMappings:   nodetest.Mappings(1 << 20),
		}}
	})

	// By root of the pod, as the image's user is another one.
	root := n.Run(pod, "root", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{}
	})

	for _, c := range []struct{ id, command, want string }{
		{app, "id -u; stat -c %u /var/lib/app /etc /image /image/bin", "1002\n0\n0\n0\n0\n"},
		{app, "echo x >/etc/passwd || echo not his", "not his\n"},
		{app, "cat /image/etc/group | head -n 1", "root:x:0:\n"},
		{root, "touch /var/lib/app/new /etc/new && stat -c %u /etc/new", "0\n"},
		{root, "echo >>/etc/group && echo ok", "ok\n"},
	} {
		out, _ := n.Exec(c.id, c.command)
		out = strings.ReplaceAll(out, "sh: can't create /etc/passwd: Permission denied\n", "")
		if out != c.want {
			t.Errorf("%s: %q, want %q", c.command, out, c.want)
		}
	}

	checkReadOnly(t, n, pod)
	removeAll(t, n, pod)
}

// What a killed server was making is undone by the next one.
func TestNothingIsLeftOfPodsWithUsersThatWereBeingMade(t *testing.T) {
	n := withUsers(t)
	for i := range 12 {
		config := n.Sandbox("model", nil).Config
		nodetest.OwnUsers(1 << 20)(config)
		config.Metadata.Name = "cut"
		config.Metadata.Attempt = uint32(i)
		done := make(chan error, 1)
		request := &runtimeapi.RunPodSandboxRequest{Config: config}
		go func() {
			_, err := n.Pods.RunPodSandbox(t.Context(), request)
			done <- err
		}()

		// Each time a little later.
		for range i * 4 {
			if _, err := n.Pods.Version(t.Context(), &runtimeapi.VersionRequest{}); err != nil {
				t.Fatal(err)
			}
		}

		n.Kill()
		<-done
		n.Start()
		n.RemoveAll(t.Context())
		if left := n.Leftovers(); len(left) > 0 {
			t.Fatalf("after %d calls: left %v", i*4, left)
		}
	}
}
