package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/program"
)

// write puts an image into the node's registry.
func (n *node) write(reference string, img v1.Image) {
	n.tb.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		n.tb.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		n.tb.Fatal(err)
	}
}

// Kubelet shows these in a pod's status, as image and imageID.
func TestStatusNamesTheImageAsItWasWhenTheContainerWasMade(t *testing.T) {
	n := newNode(t)
	ref, err := name.ParseReference(n.image)
	if err != nil {
		t.Fatal(err)
	}

	manifest, err := remote.Head(ref)
	if err != nil {
		t.Fatal(err)
	}

	spec := &runtimeapi.ImageSpec{Image: n.image}
	pulled, err := n.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: spec})
	if err != nil {
		t.Fatal(err)
	}

	pod, box := n.sandbox("names", nil)
	byKubelet := n.create(pod, box, "by-kubelet", []string{"true"}, func(c *runtimeapi.ContainerConfig) {
		c.Image = &runtimeapi.ImageSpec{Image: pulled.ImageRef, UserSpecifiedImage: n.image}
	})
	byID := n.create(pod, box, "by-id", []string{"true"}, func(c *runtimeapi.ContainerConfig) {
		c.Image.Image = pulled.ImageRef
	})
	check := func(when string) {
		t.Helper()
		for _, id := range []string{byKubelet, byID} {
			st := n.status(id)
			want := strings.TrimSuffix(n.image, ":1") + "@" + manifest.Digest.String()
			if st.Image.Image != n.image || st.ImageRef != want || st.ImageId != pulled.ImageRef {
				t.Errorf("%s: image %s, ref %s, ID %s; want %s, %s, %s", when,
					st.Image.Image, st.ImageRef, st.ImageId, n.image, want, pulled.ImageRef)
			}
		}
	}

	check("at first")

	other, err := mutate.Config(empty.Image, v1.Config{Env: []string{"OTHER=yes"}})
	if err != nil {
		t.Fatal(err)
	}

	n.write(n.image, other)
	n.pull()
	check("after the tag has moved")
	spec = &runtimeapi.ImageSpec{Image: pulled.ImageRef}
	if _, err := n.images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: spec}); err != nil {
		t.Fatal(err)
	}

	check("after the image was removed")
	n.kill()
	n.start()
	check("after a restart")
}

func TestArtifactIsMountedAndNotRun(t *testing.T) {
	n := newNode(t)
	n.pull()
	artifact := strings.TrimSuffix(n.image, "busybox:1") + "artifact:1"
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

	n.write(artifact, img)
	spec := &runtimeapi.ImageSpec{Image: artifact}
	if _, err := n.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: spec}); err != nil {
		t.Fatal(err)
	}

	pod, box := n.sandbox("artifact", nil)
	command := []string{"cat", "/whole/model/weights.bin", "/part/weights.bin"}
	id := n.run(pod, box, "reader", command, func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{
			{ContainerPath: "/whole", Image: spec, Readonly: true},
			{ContainerPath: "/part", Image: spec, Readonly: true, ImageSubPath: "model"},
		}
	})

	eventually(t, func() bool { return n.status(id).State == runtimeapi.ContainerState_CONTAINER_EXITED })
	log, err := os.ReadFile(n.dir + "/logs/reader.log")
	if err != nil || strings.Count(string(log), "weights") != 2 {
		t.Errorf("log %q, %v", log, err)
	}

	config := &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "main"}, Image: spec}
	request := &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: box}
	_, err = n.pods.CreateContainer(t.Context(), request)
	if err == nil || !strings.Contains(fmt.Sprint(err), "OCI artifact") {
		t.Errorf("container of an artifact: %v", err)
	}
}

// command runs trivet-cri images against the node.
func (n *node) command(stdin io.Reader, verb string, args ...string) (string, error) {
	n.tb.Helper()
	flags := []string{
		"images", verb,
		"--config=" + n.dir + "/cri.toml",
		"--socket=" + n.dir + "/cri.sock",
		"--state-dir=" + n.dir + "/run",
	}
	cmd := exec.CommandContext(n.tb.Context(), n.dir+"/bin/trivet-cri", append(flags, args...)...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestImagesAreImportedBesideTheServer(t *testing.T) {
	n := newNode(t)
	ref, err := name.ParseReference(n.image)
	if err != nil {
		t.Fatal(err)
	}

	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}

	tag, err := name.NewTag("imported.example/busybox:1")
	if err != nil {
		t.Fatal(err)
	}

	var saved bytes.Buffer
	if err := tarball.Write(tag, img, &saved); err != nil {
		t.Fatal(err)
	}

	out, err := n.command(&saved, "import", "--pin")
	if err != nil || !strings.Contains(out, "sha256:") || !strings.Contains(out, tag.String()) {
		t.Fatalf("import: %s, %v", out, err)
	}

	pod, box := n.sandbox("imported", nil)
	id := n.run(pod, box, "main", []string{"true"}, func(c *runtimeapi.ContainerConfig) {
		c.Image.Image = tag.String()
	})
	eventually(t, func() bool { return n.status(id).State == runtimeapi.ContainerState_CONTAINER_EXITED })
	if st := n.status(id); st.ExitCode != 0 || st.Image.Image != tag.String() {
		t.Errorf("container of the imported image: %v", st)
	}

	out, err = n.command(nil, "list")
	if err != nil || !strings.Contains(out, tag.String()) || !strings.Contains(out, "true") {
		t.Errorf("list: %s, %v", out, err)
	}
	if out, err := n.command(nil, "export", "-o", n.dir+"/saved.tar", tag.String()); err != nil {
		t.Errorf("export: %s, %v", out, err)
	}

	out, err = n.command(nil, "import", n.dir+"/saved.tar")
	if err != nil || !strings.Contains(out, tag.String()) {
		t.Errorf("import of what was exported: %s, %v", out, err)
	}
	if out, err := n.command(nil, "export", "absent:1"); err == nil || !strings.Contains(out, "not found") {
		t.Errorf("export of an absent image: %s, %v", out, err)
	}

	out, err = n.command(strings.NewReader("nonsense"), "import", "-")
	if err == nil || !strings.Contains(out, "archive") {
		t.Errorf("import of nonsense: %s, %v", out, err)
	}

	for i, want := range []bool{true, false} {
		if out, err := n.command(nil, "remove", tag.String()); (err == nil) != want {
			t.Errorf("removal %d: %s, %v", i, out, err)
		}
	}

	n.kill()
	out, err = n.command(&saved, "import")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != program.ExitCantRun {
		t.Errorf("import without a server: %s, %v", out, err)
	}

	n.start()
}
