package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

// status asks for an image as kubelet does where the pull policy is Never; nil if it is not there.
func status(t *testing.T, n *nodetest.Node, name string) *runtimeapi.Image {
	t.Helper()
	response, err := n.Images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{
		Image: &runtimeapi.ImageSpec{Image: name},
	})
	if err != nil {
		t.Fatal(err)
	}
	return response.Image
}

// An archive of the OCI layout says what the image's digest is.
func TestImportedImageIsThereByTagAndDigest(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	if out, err := command(t, n, nil, "tag", n.Image, imported); err != nil {
		t.Fatalf("tag: %s, %v", out, err)
	}

	archive := n.Dir + "/a.tar"
	if out, err := command(t, n, nil, "export", "-o", archive, imported); err != nil {
		t.Fatalf("export: %s, %v", out, err)
	}

	pulled := status(t, n, imported).Id
	if out, err := command(t, n, nil, "remove", pulled); err != nil {
		t.Fatalf("remove: %s, %v", out, err)
	}
	if out, err := command(t, n, nil, "import", archive); err != nil || !strings.Contains(out, pulled) {
		t.Fatalf("import: %s, %v; want %s", out, err, pulled)
	}

	got := status(t, n, imported)
	if got == nil || len(got.RepoDigests) != 1 {
		t.Fatalf("by tag: %v", got)
	}

	digest := got.RepoDigests[0]
	if again := status(t, n, digest); again == nil || again.Id != got.Id {
		t.Fatalf("by digest %s: %v", digest, again)
	}

	id := n.Run(n.Sandbox("imported", nil), "main", []string{"true"}, func(c *runtimeapi.ContainerConfig) {
		c.Image.Image = digest
	})
	if st := n.AwaitExit(id); st.ExitCode != 0 || st.ImageRef != digest {
		t.Errorf("container by digest: %v", st)
	}
}

func TestNamesAreTakenOneByOne(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	if out, err := command(t, n, nil, "tag", n.Image, "a:1", "a:2"); err != nil {
		t.Fatalf("tag: %s, %v", out, err)
	}
	if out, err := command(t, n, nil, "remove", "a:1", n.Image); err != nil {
		t.Fatalf("remove: %s, %v", out, err)
	}

	if got := status(t, n, "a:2"); got == nil || len(got.RepoTags) != 1 {
		t.Errorf("what is left: %v", got)
	}
	out, err := command(t, n, nil, "tag", "absent:1", "a:3")
	if err == nil || !strings.Contains(out, "absent:1") {
		t.Errorf("tag of an absent image: %s, %v", out, err)
	}
}

func TestTwentyImportsAtOnce(t *testing.T) {
	n := nodetest.New(t)
	var all sync.WaitGroup
	name := func(i int) string { return fmt.Sprintf("imported.example/busybox:%d", i) }
	for i := range 20 {
		archive := saved(t, n, name(i))
		all.Go(func() {
			if out, err := command(t, n, archive, "import"); err != nil {
				t.Errorf("import %d: %s, %v", i, out, err)
			}
		})
	}

	all.Wait()
	for i := range 20 {
		if got := status(t, n, name(i)); got == nil || len(got.RepoTags) != 20 {
			t.Errorf("%s: %v", name(i), got)
		}
	}
}

// half begins an import and stops in its middle.
func half(t *testing.T, n *nodetest.Node, archive []byte) (cmd *exec.Cmd, out *bytes.Buffer, rest io.Closer) {
	t.Helper()
	cmd = exec.Command(n.Dir+"/bin/trivet-cri", append([]string{"images", "import"}, imageFlags(n)...)...)
	out = new(bytes.Buffer)
	cmd.Stderr = out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	if _, err := stdin.Write(archive[:len(archive)/2]); err != nil {
		t.Fatal(err)
	}

	// The server has got some of it.
	nodetest.Eventually(t, func() bool {
		files, _ := filepath.Glob(n.Dir + "/lib/images/tmp/import-*/*")
		return len(files) > 0
	})

	return cmd, out, stdin
}

func TestKilledImportsLeaveNothing(t *testing.T) {
	n := nodetest.New(t)
	archive := saved(t, n, imported).Bytes()
	empty := func() bool {
		left, err := os.ReadDir(n.Dir + "/lib/images/tmp")
		return err == nil && len(left) == 0
	}

	// The client goes first.
	cmd, _, rest := half(t, n, archive)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	rest.Close()
	nodetest.Eventually(t, empty)
	if got := status(t, n, imported); got != nil {
		t.Errorf("half an archive was imported: %v", got)
	}

	// Then the server, of which the client says so.
	cmd, out, rest := half(t, n, archive)
	n.Kill()
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "trivet-cri has ended") {
		t.Errorf("the client ends with %v: %s", err, out)
	}

	rest.Close()
	n.Start()
	if !empty() {
		t.Error("the next start has left what was there of the archive")
	}

	if out, err := command(t, n, bytes.NewReader(archive), "import"); err != nil {
		t.Errorf("import: %s, %v", out, err)
	}
	if status(t, n, imported) == nil {
		t.Error("the image is not there")
	}
}
