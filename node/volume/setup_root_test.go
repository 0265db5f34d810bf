package volume_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/volume"
)

// api has the objects that volumes refer to.
type api struct {
	mu      sync.Mutex
	maps    map[string]*v1.ConfigMap
	secrets map[string]*v1.Secret

	// tokens is how many were requested.
	tokens int

	// life is how long tokens are valid, by default an hour.
	life time.Duration

	// certificates are those of pods, nil for none.
	certificates volume.Certificates
}

// absent is the API server's answer for an object that does not exist.
func absent(kind, name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: kind}, name)
}

func (a *api) ConfigMap(_ context.Context, _, name string) (*v1.ConfigMap, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.maps[name]; o != nil {
		return o, nil
	}
	return nil, absent("configmaps", name)
}

func (a *api) Secret(_ context.Context, _, name string) (*v1.Secret, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.secrets[name]; o != nil {
		return o, nil
	}
	return nil, absent("secrets", name)
}

func (a *api) PersistentVolumeClaim(_ context.Context, _, name string) (*v1.PersistentVolumeClaim, error) {
	return nil, absent("persistentvolumeclaims", name)
}

func (a *api) PersistentVolume(_ context.Context, name string) (*v1.PersistentVolume, error) {
	return nil, absent("persistentvolumes", name)
}

func (a *api) ClusterTrustBundle(_ context.Context, name string) (*certificatesv1.ClusterTrustBundle, error) {
	return nil, absent("clustertrustbundles", name)
}

func (a *api) ClusterTrustBundles(
	context.Context,
	string,
	labels.Selector,
) ([]certificatesv1.ClusterTrustBundle, error) {
	return nil, nil
}

func (a *api) Token(
	_ context.Context,
	_, account string,
	_ authenticationv1.TokenRequestSpec,
) (*authenticationv1.TokenRequest, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens++
	return &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
		Token:               fmt.Sprintf("%s-%d", account, a.tokens),
		ExpirationTimestamp: metav1.NewTime(time.Now().Add(a.life)),
	}}, nil
}

// newMounter returns a mounter and its root directory. At the end of the test all pods are taken down.
func newMounter(t *testing.T, a *api) (*volume.Mounter, string) {
	t.Helper()
	testenv.Root(t)
	root := testenv.ShortDir(t)
	if a.life == 0 {
		a.life = time.Hour
	}

	m := volume.New(volume.Config{
		Root:    root,
		Node:    podenv.Node{Name: "n"},
		Objects: a,
		Tokens:  a,
		Log:     slog.New(slog.DiscardHandler),

		Certificates: a.certificates,
	})

	t.Cleanup(func() {
		if err := m.Orphans(context.Background(), func(types.UID) bool { return false }); err != nil {
			t.Errorf("take down what is left: %v", err)
		}
	})

	return m, root
}

// pod makes a pod whose one container mounts all the volumes at /NAME.
func pod(volumes ...v1.Volume) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name:      "p",
		Namespace: "ns",
		UID:       "uid-1",
		Labels:    map[string]string{"a": "1"},
	}}

	p.Spec.Volumes = volumes
	c := v1.Container{Name: "c"}
	for _, v := range volumes {
		c.VolumeMounts = append(c.VolumeMounts, v1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
	}

	p.Spec.Containers = []v1.Container{c}
	return p
}

func projected(name string, sources ...v1.VolumeProjection) v1.Volume {
	return v1.Volume{
		Name:         name,
		VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: sources}},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func setup(t *testing.T, m *volume.Mounter, p *v1.Pod) *volume.Volumes {
	t.Helper()
	out, err := m.Setup(t.Context(), p)
	must(t, err)
	return out
}

func stat(t *testing.T, path string) (mode os.FileMode, uid, gid uint32) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return info.Mode(), st.Uid, st.Gid
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data)
}
