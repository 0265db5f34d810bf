package volume_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/volume"
)

func TestVolumesAreTakenDownBelowARootThatIsALink(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	link := filepath.Join(dir, "kubelet")
	must(t, os.Mkdir(filepath.Join(dir, "disk"), 0o750))
	must(t, os.Symlink("disk", link))
	secret := &v1.Secret{Data: map[string][]byte{"k": []byte("v")}}
	a := &api{life: time.Hour, secrets: map[string]*v1.Secret{"s": secret}}
	m := volume.New(volume.Config{
		Root:    link,
		Node:    podenv.Node{Name: "n"},
		Objects: a,
		Tokens:  a,
		Log:     slog.New(slog.DiscardHandler),
	})

	p := pod(v1.Volume{Name: "secret"}, v1.Volume{Name: "mem"})
	p.Spec.Volumes[0].Secret = &v1.SecretVolumeSource{SecretName: "s"}
	p.Spec.Volumes[1].EmptyDir = &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}
	setup(t, m, p)
	must(t, m.Teardown(t.Context(), p.UID))
	if left, err := m.Pods(); err != nil || len(left) > 0 {
		t.Errorf("pods left: %v, %v", left, err)
	}
}
