package main

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
	"github.com/trivet-node/trivet/internal/program"
)

// command runs trivet-cri images against a node.
func command(t *testing.T, n *nodetest.Node, stdin io.Reader, verb string, args ...string) (string, error) {
	t.Helper()
	line := slices.Concat([]string{"images", verb}, imageFlags(n), args)
	cmd := exec.CommandContext(t.Context(), n.Dir+"/bin/trivet-cri", line...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// imageFlags say where a node's server is.
func imageFlags(n *nodetest.Node) []string {
	return []string{
		"--config=" + n.Dir + "/cri.toml",
		"--socket=" + n.Dir + "/cri.sock",
		"--state-dir=" + n.Dir + "/run",
	}
}

// saved returns an archive of the node's image under another name, as docker save makes it.
func saved(t *testing.T, n *nodetest.Node, as string) *bytes.Buffer {
	t.Helper()
	ref, err := name.ParseReference(n.Image)
	if err != nil {
		t.Fatal(err)
	}

	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}

	tag, err := name.NewTag(as)
	if err != nil {
		t.Fatal(err)
	}

	var archive bytes.Buffer
	if err := tarball.Write(tag, img, &archive); err != nil {
		t.Fatal(err)
	}

	return &archive
}

const imported = "imported.example/busybox:1"

func TestImagesAreImportedBesideTheServer(t *testing.T) {
	n := nodetest.New(t)
	out, err := command(t, n, saved(t, n, imported), "import", "--pin")
	if err != nil || !strings.Contains(out, "sha256:") || !strings.Contains(out, imported) {
		t.Fatalf("import: %s, %v", out, err)
	}

	pod := n.Sandbox("imported", nil)
	id := n.Run(pod, "main", []string{"true"}, func(c *runtimeapi.ContainerConfig) {
		c.Image.Image = imported
	})
	if st := n.AwaitExit(id); st.ExitCode != 0 || st.Image.Image != imported {
		t.Errorf("container of the imported image: %v", st)
	}

	out, err = command(t, n, nil, "list")
	if err != nil || !strings.Contains(out, imported) || !strings.Contains(out, "true") {
		t.Errorf("list: %s, %v", out, err)
	}

	if out, err := command(t, n, nil, "export", "-o", n.Dir+"/saved.tar", imported); err != nil {
		t.Errorf("export: %s, %v", out, err)
	}

	out, err = command(t, n, nil, "import", n.Dir+"/saved.tar")
	if err != nil || !strings.Contains(out, imported) {
		t.Errorf("import of what was exported: %s, %v", out, err)
	}

	// The second removal finds nothing.
	for i, want := range []bool{true, false} {
		if out, err := command(t, n, nil, "remove", imported); (err == nil) != want {
			t.Errorf("removal %d: %s, %v", i, out, err)
		}
	}
}

func TestImportsAndExportsThatFailSayWhy(t *testing.T) {
	n := nodetest.New(t)
	out, err := command(t, n, nil, "export", "absent:1")
	if err == nil || !strings.Contains(out, "not found") {
		t.Errorf("export of an absent image: %s, %v", out, err)
	}

	out, err = command(t, n, strings.NewReader("nonsense"), "import", "-")
	if err == nil || !strings.Contains(out, "archive") {
		t.Errorf("import of nonsense: %s, %v", out, err)
	}

	archive := saved(t, n, imported)
	n.Kill()
	out, err = command(t, n, archive, "import")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != program.ExitCantRun {
		t.Errorf("import without a server: %s, %v", out, err)
	}

	n.Start()
}
