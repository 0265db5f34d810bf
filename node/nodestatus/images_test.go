package nodestatus_test

import (
	"cmp"
	"context"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/node/runtime"
)

func (f *fakeRuntime) ListImages(context.Context) ([]*runtime.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := cmp.Or(f.image, "registry.example/a:1")
	return []*runtime.Image{{Size: 7, RepoTags: []string{name}}}, nil
}

func TestImagesThatHaveComeOrGoneAreShownAtTheNextLook(t *testing.T) {
	n := newNode(t, kubetest.Start(t), nil)
	n.start()
	<-n.Registered()

	n.runtime.mu.Lock()
	n.runtime.image = "registry.example/b:1"
	n.runtime.mu.Unlock()
	n.ImagesChanged()
	n.await("the new image", func() bool {
		images := n.stored().Status.Images
		return len(images) == 1 && slices.Equal(images[0].Names, []string{"registry.example/b:1"})
	})
}
