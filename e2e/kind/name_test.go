package kind

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// usersDocker is a cluster on a Docker whose command prints the name of one container.
func usersDocker(t *testing.T, container func(c *Cluster) string) *Cluster {
	t.Helper()
	c := &Cluster{
		Dir:    filepath.Join(t.TempDir(), "kind"),
		Bin:    t.TempDir(),
		Image:  "kindest/node:v1",
		Docker: &docker{running: true},
	}

	script := "#!/bin/sh\necho " + container(c) + "\n"
	if err := os.WriteFile(filepath.Join(c.Bin, "docker"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClusterThatIsNotRecordedIsRefused(t *testing.T) {
	c := usersDocker(t, func(c *Cluster) string { return c.name().controlPlane() })
	err := c.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), c.name().controlPlane()) {
		t.Errorf("error %v", err)
	}
	if _, err := ReadRecord(c.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("record: %v", err)
	}
}

func TestClusterOfAnotherNameIsLeftAlone(t *testing.T) {
	c := usersDocker(t, func(*Cluster) string { return "trivet-control-plane" })
	if err := c.claim(t.Context()); err != nil {
		t.Error(err)
	}

	other := &Cluster{Dir: c.Dir + "2", Image: c.Image}
	if other.name() == c.name() || c.name() == (&Cluster{}).name() {
		t.Errorf("names %s, %s", c.name(), other.name())
	}
}

func TestDirectoryWithoutARecordIsLeftAlone(t *testing.T) {
	var out strings.Builder
	c := &Cluster{Dir: t.TempDir(), Docker: &docker{}, Out: &out}
	if err := os.WriteFile(c.path("node"), nil, 0o644); err != nil {
		t.Fatal(err)
	}

	if err := c.claim(t.Context()); err == nil || !strings.Contains(err.Error(), c.path("node")) {
		t.Errorf("claim: %v", err)
	}
	if err := c.Down(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(c.path("node")); err != nil {
		t.Error(err)
	}
}

func TestSnapshotOfTheHostEndsWithTheCluster(t *testing.T) {
	var out strings.Builder
	c := &Cluster{Dir: t.TempDir(), Docker: &docker{}, Out: &out}
	if err := c.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.hostFile(), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}

	if err := c.Down(t.Context()); err == nil || !strings.Contains(err.Error(), c.hostFile()) {
		t.Errorf("a torn snapshot: %v", err)
	}
	if _, err := os.Stat(c.hostFile()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("snapshot: %v", err)
	}
}
