package podsource

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/manifest"
)

const etcd = `{apiVersion: v1, kind: Pod, metadata: {name: etcd, namespace: kube-system},
	spec: {containers: [{name: c, image: "registry.example/etcd"}]}}`

// directory is one of manifests that a test changes.
type directory struct {
	*Files
	t *testing.T
}

// manifestsOf returns a directory that does not exist yet and was not read.
func manifestsOf(t *testing.T, s testSource) directory {
	path := filepath.Join(t.TempDir(), "manifests")
	return directory{&Files{source: s.Source, path: path}, t}
}

func (d directory) write(name, text string) {
	d.t.Helper()
	if err := os.MkdirAll(d.path, 0o750); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.path, name), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	d.read()
}

func (d directory) remove(name string) {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.path, name)); err != nil {
		d.t.Fatal(err)
	}
	d.read()
}

// only is the single pod of the source.
func (d directory) only() *v1.Pod {
	d.t.Helper()
	pods := d.source.List()
	if len(pods) != 1 {
		d.t.Fatalf("%d pods: %v", len(pods), pods)
	}
	return pods[0]
}

func TestStaticPodsFollowTheirFiles(t *testing.T) {
	s := source(t)
	d := manifestsOf(t, s)
	d.write("etcd.yaml", etcd)
	first := d.only()
	if first.Name != "etcd-node1" || !Static(first) || first.Annotations[annotationSeen] == "" {
		t.Fatalf("pod %+v", first)
	}

	d.write("etcd.yaml", etcd+" # a comment")
	if d.only() != first {
		t.Error("a comment made another pod")
	}

	d.write("etcd.yaml", "half writ")
	if d.only().UID != first.UID {
		t.Error("a half-written file ended the pod")
	}

	s.start()

	d.only()
	d.write("etcd.yaml", strings.Replace(etcd, "example/etcd", "example/etcd:2", 1))
	if d.only().UID == first.UID {
		t.Error("another image, the same pod")
	}

	d.remove("etcd.yaml")
	if got := s.List(); len(got) != 0 {
		t.Errorf("the file is gone, the pod is not: %v", got)
	}
}

func TestManifestThatNamesItsUIDChangesItsPod(t *testing.T) {
	s := source(t)
	d := manifestsOf(t, s)
	named := strings.Replace(etcd, "name: etcd,", "name: etcd, uid: mine,", 1)
	d.write("etcd.yaml", named)
	s.static["mine"].Status.Phase = v1.PodRunning
	s.looks.take()
	d.write("etcd.yaml", strings.Replace(named, "example/etcd", "example/etcd:2", 1))
	got, seen := d.only(), s.looks.take()
	if got.UID != "mine" || got.Generation != 2 || got.Status.Phase != v1.PodRunning || len(seen) != 1 {
		t.Errorf("pod %+v, looks at %v", got, seen)
	}
}

func TestOfTwoFilesWithOnePodTheLaterCounts(t *testing.T) {
	s := source(t)
	d := manifestsOf(t, s)
	d.write("x.yaml", etcd)
	d.write("x.yaml.bak", strings.Replace(etcd, "example/etcd", "example/etcd:2", 1))
	if got := d.only().Spec.Containers[0].Image; got != "registry.example/etcd:2" {
		t.Errorf("the pod is that of the first file: image %s", got)
	}
	d.remove("x.yaml.bak")
	if got := d.only().Spec.Containers[0].Image; got != "registry.example/etcd" {
		t.Errorf("image %s", got)
	}
}

func TestFilesThatAreNoManifestsAreLeftOut(t *testing.T) {
	s := source(t)
	d := manifestsOf(t, s)
	d.write(".hidden.yaml", strings.Replace(etcd, "name: etcd", "name: hidden", 1))
	d.write("big.yaml", strings.Replace(etcd, "name: etcd", "name: big", 1)+strings.Repeat("#", maxManifest))
	if err := os.Mkdir(filepath.Join(d.path, "dir.yaml"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(d.path, "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(d.path, "dangling.yaml")); err != nil {
		t.Fatal(err)
	}

	d.write("etcd.yaml", etcd)
	if got := d.only().Name; got != "etcd-node1" {
		t.Errorf("pod %s", got)
	}
}

func TestSingleFileIsAPathOfManifests(t *testing.T) {
	s := source(t)
	path := filepath.Join(t.TempDir(), "one")
	if err := os.WriteFile(path, []byte(etcd), 0o600); err != nil {
		t.Fatal(err)
	}
	NewFiles(s.Source, path)
	if len(s.List()) != 1 {
		t.Errorf("pods %v", s.List())
	}
}

func TestStaticPodsAreSettledApartFromTheAPI(t *testing.T) {
	s := source(t)
	s.expect(manifest.SourceFile)
	if s.Settled(manifest.SourceFile) {
		t.Error("settled before the files were read")
	}

	NewFiles(s.Source, filepath.Join(t.TempDir(), "none"))
	if !s.Settled(manifest.SourceFile) || s.Settled(SourceAPI) {
		t.Error("the files are not settled, or the API is")
	}
	if s.Complete() {
		t.Error("complete without the API's list")
	}

	s.start()
	if !s.Complete() {
		t.Error("not complete with it")
	}
}

func TestManifestsAreFollowedWhenTheirDirectoryComesAndGoes(t *testing.T) {
	s := source(t)
	d := manifestsOf(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})

	for round := range 2 {
		uid := types.UID(fmt.Sprint("u", round))
		if err := os.MkdirAll(d.path, 0o750); err != nil {
			t.Fatal(err)
		}

		text := strings.Replace(etcd, "name: etcd,", "name: etcd, uid: "+string(uid)+",", 1)
		if err := os.WriteFile(filepath.Join(d.path, "etcd.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		s.await("the manifest is seen", func() bool { return s.Get(uid) != nil })
		if err := os.RemoveAll(d.path); err != nil {
			t.Fatal(err)
		}

		s.await("the pod goes with its directory", func() bool { return s.Get(uid) == nil })
	}
}
