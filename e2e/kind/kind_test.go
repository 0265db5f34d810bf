package kind

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/kind/smoke"
	"github.com/trivet-node/trivet/e2e/leaks"
	"github.com/trivet-node/trivet/internal/testenv"
)

// docker is a Docker that runs, or does not.
type docker struct {
	running bool
	env     []string
}

func (d *docker) Fetch(context.Context) error  { return nil }
func (d *docker) Up(context.Context) error     { d.running = true; return nil }
func (d *docker) Running() bool                { return d.running }
func (d *docker) Enter() error                 { return nil }
func (d *docker) Environ() []string            { return d.env }
func (d *docker) Reboot(context.Context) error { return nil }
func (d *docker) Down(context.Context) error   { d.running = false; return nil }
func (d *docker) Leaks() ([]leaks.Leak, error) { return nil, nil }

func TestConfigurationOfKind(t *testing.T) {
	for name, c := range map[string]*Cluster{
		"parts.yaml":     {Dir: "/state"},
		"trivet.yaml":    {Dir: "/state", Trivet: true},
		"published.yaml": {Dir: "/state", Image: "kindest/node:v1"},
		"ipv6.yaml":      {Dir: "/state", Family: smoke.IPv6},
	} {
		testenv.Golden(t, name, config{c}.text())
	}
}

func TestClusterIsRecordedBeforeThereIsAnythingOfIt(t *testing.T) {
	c := &Cluster{Dir: filepath.Join(t.TempDir(), "kind"), Trivet: true}
	if _, err := ReadRecord(c.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("error %v without a cluster", err)
	}

	for range 2 {
		if err := c.claim(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	if r, err := ReadRecord(c.Dir); err != nil || r != (Record{Trivet: true}) {
		t.Errorf("record %+v, %v", r, err)
	}
}

func TestSecondClusterOfAnotherKindIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := (&Cluster{Dir: dir}).claim(t.Context()); err != nil {
		t.Fatal(err)
	}

	err := (&Cluster{Dir: dir, Image: "kindest/node:v1"}).claim(t.Context())
	if err == nil || !strings.Contains(err.Error(), "make kind-down") {
		t.Errorf("error %v", err)
	}
}

func TestRecordThatIsTornIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, recordFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRecord(dir); err == nil || !strings.Contains(err.Error(), recordFile) {
		t.Errorf("error %v", err)
	}
}

func TestProgramsAreThoseOfTheRepositoryThenOfDocker(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"bin/kubectl", "docker/docker", "docker/kubectl"} {
		file := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	c := &Cluster{
		Dir:    dir,
		Bin:    filepath.Join(dir, "bin"),
		Docker: &docker{env: []string{"PATH=" + filepath.Join(dir, "docker"), "DOCKER_HOST=unix:///d"}},
	}
	for name, want := range map[string]string{
		"kubectl": "bin/kubectl",
		"docker":  "docker/docker",
	} {
		if got := c.Command(t.Context(), name).Path; got != filepath.Join(dir, want) {
			t.Errorf("%s is %s", name, got)
		}
	}

	if env := c.Command(t.Context(), "docker").Env; !slices.Contains(env, "DOCKER_HOST=unix:///d") {
		t.Errorf("environment %v", env)
	}
}

func TestFailedCommandIsNamedWithWhatItSaid(t *testing.T) {
	c := &Cluster{Dir: t.TempDir(), Docker: &docker{}}
	_, err := output(c.Command(t.Context(), "sh", "-c", "echo no such node >&2; exit 3"))
	if err == nil || !strings.Contains(err.Error(), "exit status 3: no such node") {
		t.Errorf("error %v", err)
	}
}

func TestDownRemovesWhatBelongsToTheCluster(t *testing.T) {
	var out strings.Builder
	c := &Cluster{
		Dir:    t.TempDir(),
		Docker: &docker{},
		Out:    &out,
	}
	if err := c.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubeconfig", "node", "bookworm.tar"} {
		if err := os.WriteFile(c.path(name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	for range 2 {
		if err := c.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	left, _ := filepath.Glob(filepath.Join(c.Dir, "*"))
	if want := []string{c.path("bookworm.tar")}; !slices.Equal(left, want) {
		t.Errorf("left: %v", left)
	}
}

func TestCourseEndsWithTrivetInEverySeat(t *testing.T) {
	names := func(c *Cluster) (names []string) {
		for _, s := range (Course{Cluster: c}).all() {
			names = append(names, s.part.String())
		}
		return names
	}

	want := []string{
		"trivet-cni",
		"trivet-csi",
		"trivet-cri on trivet-worker",
		"trivet-node on trivet-worker",
		"trivet-node on trivet-control-plane",
	}
	if got := names(&Cluster{}); !slices.Equal(got, want) {
		t.Errorf("steps %v", got)
	}
	if got := names(&Cluster{Trivet: true}); !slices.Equal(got, want[:2]) {
		t.Errorf("steps of nodes with trivet %v", got)
	}
}

func TestSwapAndSmokeWantAClusterWithTrivet(t *testing.T) {
	c := &Cluster{Dir: t.TempDir(), Docker: &docker{}, Trivet: true}
	if err := c.claim(t.Context()); err != nil {
		t.Fatal(err)
	}

	course := Course{Cluster: c}
	if err := course.Swap(t.Context()); err == nil || !strings.Contains(err.Error(), "0 of 2 parts") {
		t.Errorf("swap: %v", err)
	}

	c.Trivet = false
	if err := course.Swap(t.Context()); err == nil || !strings.Contains(err.Error(), "from the start") {
		t.Errorf("swap: %v", err)
	}
	err := course.Smoke(t.Context(), "", "")
	if err == nil || !strings.Contains(err.Error(), "from the start") {
		t.Errorf("smoke: %v", err)
	}
}

func TestClusterOfAnotherFamilyIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := (&Cluster{Dir: dir, Family: smoke.Dual}).claim(t.Context()); err != nil {
		t.Fatal(err)
	}

	err := (&Cluster{Dir: dir}).claim(t.Context())
	if err == nil || !strings.Contains(err.Error(), "dual") {
		t.Errorf("error %v", err)
	}
}
