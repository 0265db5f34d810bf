package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/nodetest"
)

// asOnANode makes the node's configuration the one in /etc, as far as this test's mounts go, and links the
// names of containerd's programs to trivet-cri.
func asOnANode(t *testing.T, n *nodetest.Node) {
	t.Helper()
	above := t.TempDir()
	if err := os.Mkdir(filepath.Join(above, "trivet"), 0o755); err != nil {
		t.Fatal(err)
	}

	config := fmt.Sprintf("socket = '%s/cri.sock'\nstate_dir = '%s/run'\n", n.Dir, n.Dir)
	if err := os.WriteFile(filepath.Join(above, "trivet/cri.toml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	lower := "lowerdir=" + above + ":/etc"
	if err := unix.Mount("overlay", "/etc", "overlay", unix.MS_RDONLY, lower); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := unix.Unmount("/etc", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})

	for _, name := range []string{"ctr", "containerd"} {
		if err := os.Symlink("trivet-cri", filepath.Join(n.Dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
}

// onNode runs a command line on the node.
func onNode(t *testing.T, n *nodetest.Node, stdin io.Reader, line ...string) (out string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(n.Dir, "bin", line[0]), line[1:]...)
	cmd.Stdin = stdin
	data, err := cmd.CombinedOutput()
	return string(data), err
}

func TestNodeAnswersKind(t *testing.T) {
	n := nodetest.New(t)
	asOnANode(t, n)

	config, err := onNode(t, n, nil, "containerd", "config", "dump")
	if err != nil || !strings.Contains(config, `snapshotter = "overlayfs"`) {
		t.Fatalf("containerd config dump: %s, %v", config, err)
	}

	out, err := onNode(t, n, saved(t, n, imported), "ctr", "--namespace=k8s.io", "images", "import",
		"--all-platforms", "--digests", "--snapshotter=overlayfs", "-")
	if err != nil {
		t.Fatalf("import: %s, %v", out, err)
	}

	// What crictl inspecti shows is the image's status.
	image := status(t, n, imported)
	if image == nil {
		t.Fatal("the image is not there")
	}

	out, err = onNode(t, n, nil, "ctr", "--namespace=k8s.io", "images", "tag", "--force", image.Id,
		"docker.io/library/again:1")
	if err != nil {
		t.Errorf("tag: %s, %v", out, err)
	}
	tags := strings.Join(status(t, n, image.Id).RepoTags, " ")
	if tags != "docker.io/library/again:1 "+imported {
		t.Errorf("tags %s", tags)
	}

	out, err = onNode(t, n, nil, "ctr", "--namespace=k8s.io", "images", "list", "-q")
	if want := "docker.io/library/again:1\n" + imported + "\n" + image.Id + "\n"; err != nil || out != want {
		t.Errorf("list: %q, %v; want %q", out, err, want)
	}
}

func TestNodeSaysWhatItDoesNotAnswer(t *testing.T) {
	n := nodetest.New(t)
	asOnANode(t, n)
	for _, line := range []string{"ctr version", "ctr -n k8s.io images pull a:1", "containerd"} {
		out, err := onNode(t, n, nil, strings.Fields(line)...)
		if err == nil || strings.Count(out, "\n") != 1 || !strings.Contains(out, "trivet-cri") {
			t.Errorf("%s: %q, %v", line, out, err)
		}
	}

	n.Kill()
	out, err := onNode(t, n, saved(t, n, imported), "ctr", "-n", "k8s.io", "images", "import", "-")
	if err == nil || !strings.Contains(out, "start trivet-cri") {
		t.Errorf("without a server: %q, %v", out, err)
	}

	n.Start()
}
