package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
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
	pulled, err := n.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: n.image}})
	if err != nil {
		t.Fatal(err)
	}
	pod, box := n.sandbox("names", nil)
	byKubelet := n.create(pod, box, "by-kubelet", []string{"true"}, func(c *runtimeapi.ContainerConfig) {
		c.Image = &runtimeapi.ImageSpec{Image: pulled.ImageRef, UserSpecifiedImage: n.image}
	})
	byID := n.create(pod, box, "by-id", []string{"true"}, func(c *runtimeapi.ContainerConfig) { c.Image.Image = pulled.ImageRef })
	check := func(when string) {
		t.Helper()
		for _, id := range []string{byKubelet, byID} {
			st := n.status(id)
			want := strings.TrimSuffix(n.image, ":1") + "@" + manifest.Digest.String()
			if st.Image.Image != n.image || st.ImageRef != want || st.ImageId != pulled.ImageRef {
				t.Errorf("%s: image %s, ref %s, ID %s; want %s, %s, %s", when, st.Image.Image, st.ImageRef, st.ImageId, n.image, want, pulled.ImageRef)
			}
		}
	}
	check("at first")

	other, err := mutate.ConfigFile(empty.Image, configured(t, empty.Image))
	if err != nil {
		t.Fatal(err)
	}
	n.write(n.image, other)
	n.pull()
	check("after the tag has moved")
	if _, err := n.images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: pulled.ImageRef}}); err != nil {
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
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.oci.empty.v1+json")
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
	id := n.run(pod, box, "reader", []string{"cat", "/whole/model/weights.bin", "/part/weights.bin"}, func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{
			{ContainerPath: "/whole", Image: spec, Readonly: true},
			{ContainerPath: "/part", Image: spec, Readonly: true, ImageSubPath: "model"},
		}
	})
	eventually(t, func() bool { return n.status(id).State == runtimeapi.ContainerState_CONTAINER_EXITED })
	if log, err := os.ReadFile(n.dir + "/logs/reader.log"); err != nil || strings.Count(string(log), "weights") != 2 {
		t.Errorf("log %q, %v", log, err)
	}

	config := &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "main"}, Image: spec, Command: []string{"true"}}
	_, err = n.pods.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: box})
	if err == nil || !strings.Contains(fmt.Sprint(err), "OCI artifact") {
		t.Errorf("container of an artifact: %v", err)
	}
}
