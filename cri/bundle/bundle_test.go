package bundle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/namespace"
)

// roots are root file systems that are directories, and images of which there is one.
type roots struct {
	dir      string
	links    map[string]string
	released []string
}

func (r *roots) Prepare(
	context.Context, string, image.Image, *namespace.Users,
) (string, error) {
	return r.dir, nil
}

func (r *roots) MapVolume(context.Context, string, int, string, bool) (string, error) {
	return r.dir, nil
}

func (r *roots) UnmapVolumes(context.Context, string) error { return nil }

func (r *roots) PrepareReadOnly(
	_ context.Context, id string, _ image.Image, _ *namespace.Users,
) (string, error) {
	dir := filepath.Join(r.dir, "mounted", id)
	return dir, os.MkdirAll(filepath.Join(dir, "model"), 0o755)
}

// Volume follows links.
func (r *roots) Volume(id string, number int, name string) (source, target string, err error) {
	target = path.Join("/", name)
	if to := r.links[target]; to != "" {
		target = to
	}
	return fmt.Sprintf("/volumes/%s/%d", id, number), target, nil
}

func (r *roots) Release(_ context.Context, id string) error {
	r.released = append(r.released, id)
	return nil
}

func (r *roots) IDs() ([]string, error) { return nil, nil }

func (r *roots) Get(name string) (image.Image, error) {
	if name == "absent" {
		return image.Image{}, image.ErrNotFound
	}
	return image.Image{ID: "sha256:2"}, nil
}

func maker(t *testing.T) (*Maker, *roots) {
	t.Helper()
	r := &roots{dir: t.TempDir()}
	passwd := "root:x:0:0::/root:/bin/sh\nweb:x:1002:1003::/home/web:/bin/sh\n"
	if err := os.Mkdir(filepath.Join(r.dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "etc/passwd"), []byte(passwd), 0o644); err != nil {
		t.Fatal(err)
	}

	return New(Config{
		SeccompDir: filepath.Join(r.dir, "seccomp"),
		Rootfs:     r,
		Images:     r,
		Host:       spec.Host{OOMScoreMin: -1000},
		Log:        slog.New(slog.DiscardHandler),
	}), r
}

func request(t *testing.T) Request {
	t.Helper()
	return Request{
		ID:  "c",
		Dir: filepath.Join(t.TempDir(), "bundle"),
		Container: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "app"},
			Command:  []string{"/bin/app"},
			Linux: &runtimeapi.LinuxContainerConfig{
				SecurityContext: &runtimeapi.LinuxContainerSecurityContext{RunAsUsername: "web"},
			},
		},
		Pod:   &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "web"}},
		Files: []specs.Mount{{Destination: "/etc/resolv.conf"}},
	}
}

func TestBundleHasTheProcessThatWasAskedFor(t *testing.T) {
	m, r := maker(t)
	req := request(t)
	source := filepath.Join(r.dir, "made", "for-a-mount")
	req.Container.Mounts = []*runtimeapi.Mount{
		{ContainerPath: "/data", HostPath: source},
		{
			ContainerPath: "/model",
			Image:         &runtimeapi.ImageSpec{Image: "model:1"},
			ImageSubPath:  "model",
			Readonly:      true,
		},
	}

	made, err := m.Make(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if made.User.UID != 1002 || made.User.GID != 1003 || made.MountedImages["/model"] != "sha256:2" {
		t.Errorf("%+v", made)
	}

	process, err := Process(req.Dir)
	if err != nil || process.User.UID != 1002 || !slices.Equal(process.Args, []string{"/bin/app"}) {
		t.Errorf("process %+v, %v", process, err)
	}
	if info, err := os.Stat(source); err != nil || !info.IsDir() {
		t.Errorf("the source of a mount: %v", err)
	}
}

func TestBundlesThatCannotBeMadeSayWhy(t *testing.T) {
	cases := map[string]func(*Request){
		"image volume /model": func(r *Request) {
			r.Container.Mounts = []*runtimeapi.Mount{
				{ContainerPath: "/model", Image: &runtimeapi.ImageSpec{Image: "absent"}},
			}
		},
		"sub-path": func(r *Request) {
			r.Container.Mounts = []*runtimeapi.Mount{{
				ContainerPath: "/model",
				Image:         &runtimeapi.ImageSpec{Image: "model:1"},
				ImageSubPath:  "absent",
			}}
		},
		"seccomp profile": func(r *Request) {
			r.Container.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{
				ProfileType:  runtimeapi.SecurityProfile_Localhost,
				LocalhostRef: "absent.json",
			}
		},
		`user "absent"`: func(r *Request) {
			r.Container.Linux.SecurityContext.RunAsUsername = "absent"
		},
		"300 volumes": func(r *Request) {
			r.Image.Config.Config.Volumes = map[string]struct{}{}
			for i := range 300 {
				r.Image.Config.Config.Volumes[fmt.Sprint("/v/", i)] = struct{}{}
			}
		},
	}

	for want, change := range cases {
		m, _ := maker(t)
		req := request(t)
		change(&req)
		if _, err := m.Make(t.Context(), req); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not contain %q", err, want)
		}
	}
}

func TestSeccompProfileIsFoundByItsNameWithThePrefixOfTheOldField(t *testing.T) {
	m, r := maker(t)
	dir := filepath.Join(r.dir, "seccomp")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "web.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"web.json", "localhost/web.json", filepath.Join(dir, "web.json")} {
		profile, err := m.localSeccomp(&runtimeapi.LinuxContainerSecurityContext{
			Seccomp: &runtimeapi.SecurityProfile{
				ProfileType:  runtimeapi.SecurityProfile_Localhost,
				LocalhostRef: name,
			},
		})
		if err != nil || string(profile) != "{}" {
			t.Errorf("%s: %q, %v", name, profile, err)
		}
	}
}

func TestVolumesAreMadeOnlyWhereNothingElseIsMounted(t *testing.T) {
	m, r := maker(t)
	r.links = map[string]string{"/to-data": "/data", "/to-proc": "/proc", "/to-own": "/own"}
	req := request(t)
	req.Container.Mounts = []*runtimeapi.Mount{{ContainerPath: "/mounted"}}
	req.Image.Config.Config.Volumes = map[string]struct{}{}
	for _, name := range []string{
		"/data", "/own", "relative", "/mounted", "/mounted/below", "/mounted-beside", "/to-data", "/to-proc",
		"/to-own", "/", "/proc", "/proc/sys", "/a/../proc", "/dev/shm", "/sys/fs/cgroup", "/etc/resolv.conf",
	} {
		req.Image.Config.Config.Volumes[name] = struct{}{}
	}

	volumes, err := m.imageVolumes(req)
	if err != nil {
		t.Fatal(err)
	}

	targets := map[string]bool{}
	for _, v := range volumes {
		if targets[v.Destination] {
			t.Errorf("%s is mounted twice", v.Destination)
		}

		targets[v.Destination] = true
	}

	got := slices.Sorted(maps.Keys(targets))
	if want := []string{"/data", "/mounted-beside", "/own", "/relative"}; !slices.Equal(got, want) {
		t.Errorf("volumes %q, want %q", got, want)
	}
}

func TestSubPathsOfAnImageDoNotLeadOut(t *testing.T) {
	root := t.TempDir()
	outside := t.TempDir()
	err := errors.Join(
		os.Mkdir(filepath.Join(root, "model"), 0o755),
		os.Symlink("model", filepath.Join(root, "link")),
		os.Symlink(outside, filepath.Join(root, "absolute")),
		os.Symlink("../../../../../../etc", filepath.Join(root, "relative")),
	)
	if err != nil {
		t.Fatal(err)
	}

	for sub, want := range map[string]string{
		"":            root,
		"model":       filepath.Join(root, "model"),
		"link":        filepath.Join(root, "model"),
		"../../model": filepath.Join(root, "model"),
	} {
		if got, err := inside(root, sub); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", sub, got, err, want)
		}
	}

	for _, sub := range []string{"absolute", "relative", "absent"} {
		if got, err := inside(root, sub); err == nil {
			t.Errorf("%q is %q", sub, got)
		}
	}
}

func TestIDsOfMountedImagesNameTheirContainer(t *testing.T) {
	container := &runtimeapi.ContainerConfig{Mounts: []*runtimeapi.Mount{
		{ContainerPath: "/data", HostPath: "/data"},
		{ContainerPath: "/model", Image: &runtimeapi.ImageSpec{Image: "model:1"}},
	}}

	ids := MountIDs("c1", container)
	if len(ids) != 1 || OwnerOf(ids[0]) != "c1" || OwnerOf("c1") != "c1" || ids[0] == "c1" {
		t.Errorf("IDs %q", ids)
	}

	m, r := maker(t)
	if err := m.Release(t.Context(), append([]string{"c1"}, ids...)...); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.released, []string{"c1", "c1-volume1"}) {
		t.Errorf("released %q", r.released)
	}
}
