package volume_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/volume"
)

// everyKind returns a pod with a volume of each kind that needs no other program, and the API that has the
// objects which they show.
func everyKind() (*api, *v1.Pod) {
	config := &v1.ConfigMap{
		Data:       map[string]string{"k": "v"},
		BinaryData: map[string][]byte{"b": {0, 1}},
	}

	a := &api{
		maps:    map[string]*v1.ConfigMap{"m": config},
		secrets: map[string]*v1.Secret{"s": {Data: map[string][]byte{"k": []byte("hidden")}}},
	}

	m := v1.LocalObjectReference{Name: "m"}
	memory := v1.EmptyDirVolumeSource{
		Medium:    v1.StorageMediumMemory,
		SizeLimit: new(resource.MustParse("1Mi")),
	}

	secret := v1.SecretVolumeSource{
		SecretName:  "s",
		DefaultMode: new(int32(0o400)),
		Items:       []v1.KeyToPath{{Key: "k", Path: "deep/key", Mode: new(int32(0o440))}},
	}

	labels := v1.DownwardAPIVolumeFile{
		Path:     "labels",
		FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"},
	}

	return a, pod(
		of("disk", v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}),
		of("mem", v1.VolumeSource{EmptyDir: &memory}),
		of("map", v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: m}}),
		of("secret", v1.VolumeSource{Secret: &secret}),
		of("info", v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{
			Items: []v1.DownwardAPIVolumeFile{labels},
		}}),
		projected(
			"all",
			v1.VolumeProjection{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
			v1.VolumeProjection{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: m}},
			v1.VolumeProjection{Secret: &v1.SecretProjection{
				LocalObjectReference: v1.LocalObjectReference{Name: "none"},
				Optional:             new(true),
			}},
		),
	)
}

func of(name string, source v1.VolumeSource) v1.Volume {
	return v1.Volume{Name: name, VolumeSource: source}
}

func TestEveryVolumeOfAPod(t *testing.T) {
	a, p := everyKind()
	m, root := newMounter(t, a)
	got := setup(t, m, p)

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

	for path, want := range map[string]os.FileMode{"disk": 0o777, "mem": 0o777, "secret/deep/key": 0o440} {
		name, file, _ := strings.Cut(path, "/")
		if mode, _, _ := stat(t, filepath.Join(got.ByName[name].Path, file)); mode.Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, mode, want)
		}
	}

	layout := filepath.Join(root, "pods", string(p.UID), "volumes", "kubernetes.io~configmap")
	if path := got.ByName["map"].Path; !strings.HasPrefix(path, layout) {
		t.Errorf("configMap is at %s, want below %s", path, layout)
	}
}

func TestWhatIsMountedIsKnownUntilItIsTornDown(t *testing.T) {
	a, p := everyKind()
	m, _ := newMounter(t, a)
	got := setup(t, m, p)
	setup(t, m, p)
	present := 0
	for _, n := range m.Present().Mounted() {
		present += n
	}
	if present != len(got.ByName) || present == 0 {
		t.Errorf("%d volumes of %d are present", present, len(got.ByName))
	}

	must(t, m.Teardown(t.Context(), p.UID))
	if left := m.Present().Mounted(); len(left) != 0 {
		t.Errorf("after the teardown: %v", left)
	}
}

func TestVolumesInMemoryHaveTheirSize(t *testing.T) {
	a, p := everyKind()
	m, _ := newMounter(t, a)

	var fs syscall.Statfs_t
	must(t, syscall.Statfs(setup(t, m, p).ByName["mem"].Path, &fs))
	if size := int64(fs.Blocks) * fs.Bsize; size != 1<<20 {
		t.Errorf("memory emptyDir has %d bytes", size)
	}
}

func TestAnUpdateReplacesContentAndKeepsWhatContainersWrote(t *testing.T) {
	a, p := everyKind()
	m, _ := newMounter(t, a)
	got := setup(t, m, p)
	must(t, os.WriteFile(filepath.Join(got.ByName["disk"].Path, "mine"), []byte("x"), 0o600))

	a.mu.Lock()
	a.maps["m"] = &v1.ConfigMap{Data: map[string]string{"k2": "v2"}}
	a.mu.Unlock()
	got = setup(t, m, p)

	if _, err := os.Stat(filepath.Join(got.ByName["map"].Path, "k")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old key is still there: %v", err)
	}
	if text := read(t, filepath.Join(got.ByName["map"].Path, "k2")); text != "v2" {
		t.Errorf("the new key has %q", text)
	}
	if text := read(t, filepath.Join(got.ByName["disk"].Path, "mine")); text != "x" {
		t.Errorf("what the container wrote is %q", text)
	}
}

func TestATokenIsRequestedOnceAndRenewedInTime(t *testing.T) {
	a, p := everyKind()
	m, _ := newMounter(t, a)
	setup(t, m, p)
	before := time.Now()
	got := setup(t, m, p)

	if a.tokens != 1 {
		t.Errorf("%d tokens were requested, want 1", a.tokens)
	}
	if wait := got.SetUpAgain.Sub(before); wait < 40*time.Minute || wait > 50*time.Minute {
		t.Errorf("the token of an hour is renewed in %v", wait)
	}
}

func TestAMounterWithoutMemoryTakesEverythingDown(t *testing.T) {
	a, p := everyKind()
	m, root := newMounter(t, a)
	setup(t, m, p)

	another := volume.New(volume.Config{Root: root, Objects: a, Tokens: a})
	must(t, another.Orphans(t.Context(), func(types.UID) bool { return false }))
	must(t, another.Teardown(t.Context(), p.UID))

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
	secret := v1.SecretVolumeSource{SecretName: "s", DefaultMode: new(int32(0o400))}
	p := pod(
		of("disk", v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}),
		of("secret", v1.VolumeSource{Secret: &secret}),
		projected(
			"all",
			v1.VolumeProjection{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
		),
	)

	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: new(int64(1234))}
	got := setup(t, m, p)
	mode, _, gid := stat(t, got.ByName["disk"].Path)
	if gid != 1234 || mode.Perm() != 0o777 || mode&os.ModeSetgid == 0 {
		t.Errorf("emptyDir: %v group %d", mode, gid)
	}

	mode, _, gid = stat(t, filepath.Join(got.ByName["secret"].Path, "k"))
	if gid != 1234 || mode.Perm() != 0o440 {
		t.Errorf("secret: %v group %d", mode, gid)
	}

	mode, _, gid = stat(t, filepath.Join(got.ByName["all"].Path, "token"))
	if gid != 1234 || mode.Perm() != 0o640 {
		t.Errorf("token: %v group %d", mode, gid)
	}

	p.UID = "uid-2"
	p.Spec.SecurityContext = &v1.PodSecurityContext{RunAsUser: new(int64(1000))}
	got = setup(t, m, p)
	mode, uid, _ := stat(t, filepath.Join(got.ByName["all"].Path, "token"))
	if uid != 1000 || mode.Perm() != 0o600 {
		t.Errorf("token: %v user %d", mode, uid)
	}
}

func TestMissingObjectsAreNamedAndComeLater(t *testing.T) {
	a := &api{maps: map[string]*v1.ConfigMap{}}
	m, _ := newMounter(t, a)
	late := v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "late"}}
	host := v1.HostPathVolumeSource{Path: "/nowhere", Type: new(v1.HostPathDirectory)}
	p := pod(of("map", v1.VolumeSource{ConfigMap: &late}), of("host", v1.VolumeSource{HostPath: &host}))

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
}

func TestSubPathsOfAContainer(t *testing.T) {
	m, root := newMounter(t, &api{})
	p := pod(of("disk", v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}))
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

// The specs of stale subPaths unmount what a container has, where kubelet has it, and stop the container: its
// pod is not set up again before the next one.
func TestTheNextContainerHasASubPathThatWasUnmounted(t *testing.T) {
	m, root := newMounter(t, &api{})
	p := pod(of("disk", v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}))
	c := &p.Spec.Containers[0]
	c.VolumeMounts = []v1.VolumeMount{{Name: "disk", MountPath: "/a", SubPath: "sub"}}
	got := setup(t, m, p)
	place := filepath.Join(root, "pods", string(p.UID), "volume-subpaths", "disk", c.Name, "0")

	for _, container := range []string{"first", "next"} {
		mounts, _, err := m.Container(p, c, got, nil)
		must(t, err)
		if mounts[0].HostPath != place {
			t.Fatalf("the %s container has %s, want %s", container, mounts[0].HostPath, place)
		}

		must(t, os.WriteFile(filepath.Join(place, container), []byte("x"), 0o600))
		if read(t, filepath.Join(got.ByName["disk"].Path, "sub", container)) != "x" {
			t.Errorf("the %s container does not have the volume", container)
		}
		must(t, unix.Unmount(place, unix.MNT_DETACH))
	}

	must(t, m.Teardown(t.Context(), p.UID))
}

func TestTeardownRemovesDeepDirectories(t *testing.T) {
	m, root := newMounter(t, &api{})
	p := pod(of("deep", v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}))
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
