package container_test

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

// Kubelet shows these in a pod's status, as image and imageID.
func TestStatusNamesTheImageAsItWasWhenTheContainerWasMade(t *testing.T) {
	n := nodetest.New(t)
	ref, err := name.ParseReference(n.Image)
	if err != nil {
		t.Fatal(err)
	}

	manifest, err := remote.Head(ref)
	if err != nil {
		t.Fatal(err)
	}

	spec := &runtimeapi.ImageSpec{Image: n.Image}
	pulled, err := n.Images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: spec})
	if err != nil {
		t.Fatal(err)
	}

	pod := n.Sandbox("names", nil)
	byKubelet := n.Create(pod, "by-kubelet", []string{"true"}, func(c *runtimeapi.ContainerConfig) {
		c.Image = &runtimeapi.ImageSpec{Image: pulled.ImageRef, UserSpecifiedImage: n.Image}
	})
	byID := n.Create(pod, "by-id", []string{"true"}, func(c *runtimeapi.ContainerConfig) {
		c.Image.Image = pulled.ImageRef
	})
	check := func(when string) {
		t.Helper()
		for _, id := range []string{byKubelet, byID} {
			st := n.Status(id)
			want := strings.TrimSuffix(n.Image, ":1") + "@" + manifest.Digest.String()
			if st.Image.Image != n.Image || st.ImageRef != want || st.ImageId != pulled.ImageRef {
				t.Errorf("%s: image %s, ref %s, ID %s; want %s, %s, %s", when,
					st.Image.Image, st.ImageRef, st.ImageId, n.Image, want, pulled.ImageRef)
			}
		}
	}

	check("at first")

	other, err := mutate.Config(empty.Image, v1.Config{Env: []string{"OTHER=yes"}})
	if err != nil {
		t.Fatal(err)
	}

	nodetest.WriteImage(t, n.Image, other)
	n.Pull()
	check("after the tag has moved")
	spec = &runtimeapi.ImageSpec{Image: pulled.ImageRef}
	if _, err := n.Images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: spec}); err != nil {
		t.Fatal(err)
	}

	check("after the image was removed")
	n.Kill()
	n.Start()
	check("after a restart")
}
