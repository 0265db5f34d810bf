package volume_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/volume"
)

// api has the objects that volumes refer to.
type api struct {
	mu      sync.Mutex
	maps    map[string]*v1.ConfigMap
	secrets map[string]*v1.Secret
	tokens  int
	life    time.Duration
}

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

func newMounter(t *testing.T, a *api) (*volume.Mounter, string) {
	t.Helper()
	testenv.Root(t)
	root := testenv.ShortDir(t)
	if a.life == 0 {
		a.life = time.Hour
	}

	return volume.New(volume.Config{
		Root:    root,
		Node:    podenv.Node{Name: "n"},
		Objects: a,
		Tokens:  a,
		Log:     slog.New(slog.DiscardHandler),
	}), root
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

func TestEveryVolumeOfAPod(t *testing.T) {
	a := &api{
		maps: map[string]*v1.ConfigMap{
			"m": {Data: map[string]string{"k": "v"}, BinaryData: map[string][]byte{"b": {0, 1}}},
		},
		secrets: map[string]*v1.Secret{"s": {Data: map[string][]byte{"k": []byte("hidden")}}},
	}

	m, root := newMounter(t, a)
	p := pod(
		v1.Volume{Name: "disk", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		v1.Volume{
			Name: "mem",
			VolumeSource: v1.VolumeSource{
				EmptyDir: &v1.EmptyDirVolumeSource{
					Medium:    v1.StorageMediumMemory,
					SizeLimit: new(resource.MustParse("1Mi")),
				},
			},
		},
		v1.Volume{
			Name: "map",
			VolumeSource: v1.VolumeSource{
				ConfigMap: &v1.ConfigMapVolumeSource{
					LocalObjectReference: v1.LocalObjectReference{Name: "m"},
				},
			},
		},
		v1.Volume{
			Name: "secret",
			VolumeSource: v1.VolumeSource{
				Secret: &v1.SecretVolumeSource{
					SecretName:  "s",
					DefaultMode: new(int32(0o400)),
					Items:       []v1.KeyToPath{{Key: "k", Path: "deep/key", Mode: new(int32(0o440))}},
				},
			},
		},
		v1.Volume{
			Name: "info",
			VolumeSource: v1.VolumeSource{
				DownwardAPI: &v1.DownwardAPIVolumeSource{
					Items: []v1.DownwardAPIVolumeFile{{
						Path:     "labels",
						FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"},
					}},
				},
			},
		},
		projected(
			"all",
			v1.VolumeProjection{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
			v1.VolumeProjection{ConfigMap: &v1.ConfigMapProjection{
				LocalObjectReference: v1.LocalObjectReference{Name: "m"},
			}},
			v1.VolumeProjection{Secret: &v1.SecretProjection{
				LocalObjectReference: v1.LocalObjectReference{Name: "none"},
				Optional:             new(true),
			}},
		),
	)

	got := setup(t, m, p)
	if mode, _, _ := stat(t, got.ByName["disk"].Path); mode.Perm() != 0o777 {
		t.Errorf("emptyDir has mode %v", mode)
	}
	if mode, _, _ := stat(t, got.ByName["mem"].Path); mode.Perm() != 0o777 {
		t.Errorf("memory emptyDir has mode %v", mode)
	}

	var fs syscall.Statfs_t
	must(t, syscall.Statfs(got.ByName["mem"].Path, &fs))
	if size := int64(fs.Blocks) * fs.Bsize; size != 1<<20 {
		t.Errorf("memory emptyDir has %d bytes", size)
	}

	for path, want := range map[string]string{
		"map/k":           "v",
		"map/b":           "\x00\x01",
		"secret/deep/key": "hidden",
		"info/labels":     `a="1"`,
		"all/token":       "default-1",
		"all/k":           "v",
	} {
		name, file, _ := strings.Cut(path, "/")
		if got := read(t, filepath.Join(got.ByName[name].Path, file)); got != want {
			t.Errorf("%s = %q, want %q", path, got, want)
		}
	}

	if mode, _, _ := stat(t, filepath.Join(got.ByName["secret"].Path, "deep/key")); mode.Perm() != 0o440 {
		t.Errorf("secret item has mode %v", mode)
	}

	if !strings.HasPrefix(
		got.ByName["map"].Path,
		filepath.Join(root, "pods", string(p.UID), "volumes", "kubernetes.io~configmap"),
	) {
		t.Errorf("configMap is at %s", got.ByName["map"].Path)
	}

	// A change arrives at the next Setup; what a container wrote stays.
	must(t, os.WriteFile(filepath.Join(got.ByName["disk"].Path, "mine"), []byte("x"), 0o600))
	a.mu.Lock()
	a.maps["m"] = &v1.ConfigMap{Data: map[string]string{"k2": "v2"}}
	a.mu.Unlock()
	got = setup(t, m, p)
	if _, err := os.Stat(filepath.Join(got.ByName["map"].Path, "k")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old key is still there: %v", err)
	}

	if read(t, filepath.Join(got.ByName["map"].Path, "k2")) != "v2" ||
		read(t, filepath.Join(got.ByName["disk"].Path, "mine")) != "x" {
		t.Error("content is wrong after an update")
	}

	if a.tokens != 1 {
		t.Errorf("%d tokens were requested, want 1", a.tokens)
	}
	if wait := time.Until(got.SetUpAgain); wait < 40*time.Minute || wait > 50*time.Minute {
		t.Errorf("the token of an hour is renewed in %v", wait)
	}

	// Another manager, without memory, takes everything down; twice.
	fresh := volume.New(volume.Config{Root: root, Objects: a, Tokens: a})
	must(t, fresh.Orphans(t.Context(), func(types.UID) bool { return false }))
	must(t, fresh.Teardown(t.Context(), p.UID))
	if left, _ := os.ReadDir(filepath.Join(root, "pods")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if points, _ := mount.Below(root); len(points) != 0 {
		t.Errorf("still mounted: %v", points)
	}
}

func TestGroupAndUserOfThePod(t *testing.T) {
	a := &api{secrets: map[string]*v1.Secret{"s": {Data: map[string][]byte{"k": []byte("hidden")}}}}
	m, _ := newMounter(t, a)
	p := pod(
		v1.Volume{Name: "disk", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		v1.Volume{
			Name: "secret",
			VolumeSource: v1.VolumeSource{
				Secret: &v1.SecretVolumeSource{SecretName: "s", DefaultMode: new(int32(0o400))},
			},
		},
		projected(
			"all",
			v1.VolumeProjection{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
		),
	)

	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: new(int64(1234))}
	got := setup(t, m, p)
	if mode, _, gid := stat(t, got.ByName["disk"].Path); gid != 1234 || mode.Perm() != 0o777 ||
		mode&os.ModeSetgid == 0 {
		t.Errorf("emptyDir: %v group %d", mode, gid)
	}

	if mode, _, gid := stat(t, filepath.Join(got.ByName["secret"].Path, "k")); gid != 1234 ||
		mode.Perm() != 0o440 {
		t.Errorf("secret: %v group %d", mode, gid)
	}

	if mode, _, gid := stat(t, filepath.Join(got.ByName["all"].Path, "token")); gid != 1234 ||
		mode.Perm() != 0o640 {
		t.Errorf("token: %v group %d", mode, gid)
	}

	p.UID, p.Spec.SecurityContext = "uid-2", &v1.PodSecurityContext{RunAsUser: new(int64(1000))}
	got = setup(t, m, p)
	if mode, uid, _ := stat(t, filepath.Join(got.ByName["all"].Path, "token")); uid != 1000 ||
		mode.Perm() != 0o600 {
		t.Errorf("token: %v user %d", mode, uid)
	}

	must(t, m.Orphans(t.Context(), func(types.UID) bool { return false }))
}

func TestMissingObjectsAreNamedAndComeLater(t *testing.T) {
	a := &api{maps: map[string]*v1.ConfigMap{}}
	m, _ := newMounter(t, a)
	p := pod(
		v1.Volume{
			Name: "map",
			VolumeSource: v1.VolumeSource{
				ConfigMap: &v1.ConfigMapVolumeSource{
					LocalObjectReference: v1.LocalObjectReference{Name: "late"},
				},
			},
		},
		v1.Volume{
			Name: "host",
			VolumeSource: v1.VolumeSource{
				HostPath: &v1.HostPathVolumeSource{Path: "/nowhere", Type: new(v1.HostPathDirectory)},
			},
		},
	)

	_, err := m.Setup(t.Context(), p)
	for _, want := range []string{
		`MountVolume.SetUp failed for volume "map" : configmap "late" not found`,
		"/nowhere is not a directory",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}

	a.maps["late"] = &v1.ConfigMap{Data: map[string]string{"k": "v"}}
	p.Spec.Volumes = p.Spec.Volumes[:1]
	p.Spec.Containers[0].VolumeMounts = p.Spec.Containers[0].VolumeMounts[:1]
	if got := setup(t, m, p); read(t, filepath.Join(got.ByName["map"].Path, "k")) != "v" {
		t.Error("wrong content")
	}

	must(t, m.Teardown(t.Context(), p.UID))
}

func TestSubPathsOfAContainer(t *testing.T) {
	m, root := newMounter(t, &api{})
	p := pod(v1.Volume{Name: "disk", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
	c := &p.Spec.Containers[0]
	c.VolumeMounts = []v1.VolumeMount{
		{Name: "disk", MountPath: "/a", SubPathExpr: "$(NAME)/x"},
		{Name: "disk", MountPath: "b", ReadOnly: true},
	}

	got := setup(t, m, p)
	mounts, _, err := m.Container(p, c, got, []podenv.Variable{{Name: "NAME", Value: "sub"}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(mounts[0].HostPath, "f"), []byte("x"), 0o600))
	if read(t, filepath.Join(got.ByName["disk"].Path, "sub", "x", "f")) != "x" {
		t.Error("subPath is not the volume's directory")
	}
	if mounts[1].ContainerPath != "/b" || !mounts[1].ReadOnly {
		t.Errorf("second mount: %+v", mounts[1])
	}
	if _, _, err := m.Container(p, c, got, nil); err == nil || !strings.Contains(err.Error(), "NAME") {
		t.Errorf("a variable that is missing: %v", err)
	}

	must(t, m.Teardown(t.Context(), p.UID))
	if points, _ := mount.Below(root); len(points) != 0 {
		t.Errorf("still mounted: %v", points)
	}
}

func TestTeardownRemovesDeepDirectories(t *testing.T) {
	m, root := newMounter(t, &api{})
	p := pod(v1.Volume{Name: "deep", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
	at, err := unix.Open(setup(t, m, p).ByName["deep"].Path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)

	// a path of 6,000 bytes: no system call takes it
	for range 3_000 {
		must(t, unix.Mkdirat(at, "d", 0o700))
		next, err := unix.Openat(at, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(at)
		at = next
	}

	unix.Close(at)

	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: old.Max}))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)

	must(t, m.Teardown(t.Context(), p.UID))
	if _, err := os.Lstat(filepath.Join(root, "pods", string(p.UID))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pod's directory is still there: %v", err)
	}
}
