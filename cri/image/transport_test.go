package image_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/registry"
)

// importInto imports an archive that has nothing wrong with it.
func importInto(t *testing.T, s *image.Store, data []byte) []image.Image {
	t.Helper()
	images, err := s.Import(t.Context(), bytes.NewReader(data), image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return images
}

func TestImageForAnotherPlatformIsImportedIfItIsAskedFor(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	theirs := forPlatform(t, h, "s390x", "theirs")
	docker := dockerArchive(t, map[string]v1.Image{"docker:1": theirs})
	both := map[string]v1.Image{"s390x": theirs, runtime.GOARCH: forPlatform(t, h, runtime.GOARCH, "ours")}
	layout, _ := layoutArchive(t, "io.containerd.image.name", "layout:1", both)

	_, err := s.Import(t.Context(), bytes.NewReader(docker), image.ImportOptions{})
	if err == nil || !strings.Contains(err.Error(), `"docker:1"`) || !strings.Contains(err.Error(), "s390x") {
		t.Errorf("error %v, want one that names the image and its platform", err)
	}

	want, err := theirs.ConfigName()
	if err != nil {
		t.Fatal(err)
	}

	for name, data := range map[string][]byte{"docker:1": docker, "layout:1": layout} {
		o := image.ImportOptions{Platform: "linux/s390x"}
		if _, err := s.Import(t.Context(), bytes.NewReader(data), o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := s.Get(name); err != nil || got.ID != want.String() {
			t.Errorf("%s is %s, %v; want %s", name, got.ID, err, want)
		}

		o.Platform = "linux/riscv64"
		if _, err := s.Import(t.Context(), bytes.NewReader(data), o); err == nil {
			t.Errorf("%s is imported for a platform that it is not for", name)
		}
	}
}

// without returns an archive without the files of some blobs.
func without(t *testing.T, data []byte, blobs ...v1.Hash) []byte {
	t.Helper()
	var b bytes.Buffer
	from, to := tar.NewReader(bytes.NewReader(data)), tar.NewWriter(&b)
	for {
		header, err := from.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(blobs, func(h v1.Hash) bool { return strings.HasSuffix(header.Name, h.Hex) }) {
			continue
		}

		if err := to.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(to, from); err != nil {
			t.Fatal(err)
		}
	}

	if err := to.Close(); err != nil {
		t.Fatal(err)
	}

	return b.Bytes()
}

// docker save writes the index of all platforms, though it may have pulled only one.
func TestArchiveMayLackTheOtherPlatformsOfAnIndex(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	theirs := forPlatform(t, h, "s390x", "theirs")
	both := map[string]v1.Image{"s390x": theirs, runtime.GOARCH: forPlatform(t, h, runtime.GOARCH, "ours")}
	data, _ := layoutArchive(t, "io.containerd.image.name", "a:1", both)

	manifest, err := theirs.Digest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := theirs.ConfigName()
	if err != nil {
		t.Fatal(err)
	}

	if images := importInto(t, s, without(t, data, manifest, config)); len(images) != 1 {
		t.Errorf("imported %v", images)
	}
}

func TestImageOfAnArchiveThatDoesNotFitIsNamed(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	ours, theirs := forPlatform(t, h, runtime.GOARCH, "ours"), forPlatform(t, h, "s390x", "theirs")
	entry := func(img v1.Image, architecture, name string) string {
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}

		return fmt.Sprintf(`{"digest":%q,"platform":{"os":"linux","architecture":%q},"annotations":`+
			`{"io.containerd.image.name":%q}}`, d, architecture, name)
	}

	// Of both:1 there is an image for each platform, of theirs:1 only one for another.
	index := `{"manifests":[` + strings.Join([]string{
		entry(theirs, "s390x", "both:1"),
		entry(theirs, "s390x", "theirs:1"),
		entry(ours, runtime.GOARCH, "both:1"),
	}, ",") + `]}`
	files := map[string]string{"index.json": index}
	for i, img := range []v1.Image{ours, theirs} {
		for j, data := range parts(t, img) {
			files[fmt.Sprintf("blob%d.%d", i, j)] = string(data)
		}
	}

	images, err := s.Import(t.Context(), bytes.NewReader(pack(t, files)), image.ImportOptions{})
	if err == nil || !strings.Contains(err.Error(), `"theirs:1"`) || !strings.Contains(err.Error(), "s390x") {
		t.Errorf("error %v", err)
	}
	if len(images) != 1 || images[0].Tags[0] != "docker.io/library/both:1" {
		t.Errorf("beside the error: %v", images)
	}
}

// parts are the blobs of an image of one layer.
func parts(t *testing.T, img v1.Image) [][]byte {
	t.Helper()
	manifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	blob, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()

	layer, err := io.ReadAll(blob)
	if err != nil {
		t.Fatal(err)
	}

	return [][]byte{manifest, config, layer}
}

// An archive is how people help a pod whose registry does not answer.
func TestImportDoesNotWaitForAPullOfTheSameImage(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	reference, img := h.push(t, "thing:1", map[string]string{"a": "1"})
	data := dockerArchive(t, map[string]v1.Image{reference: img})

	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	hook := func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			once.Do(func() { close(reached) })
			<-release
		}
		return false
	}
	h.hook.Store(&hook)

	pulled := make(chan error, 1)
	go func() {
		_, err := s.Pull(t.Context(), reference, registry.Auth{})
		pulled <- err
	}()

	<-reached
	imported := importInto(t, s, data)
	if got, err := s.Get(reference); err != nil || got.ID != imported[0].ID {
		t.Errorf("%+v, %v", got, err)
	}

	close(release)
	if err := <-pulled; err != nil {
		t.Errorf("the pull beside the import: %v", err)
	}
	if got, err := s.Get(reference); err != nil || len(got.Digests) != 1 {
		t.Errorf("after the pull: %+v, %v", got, err)
	}
}

func TestImportsAtOnce(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	s := openStore(t, dir)
	const number = 20
	same := forPlatform(t, h, runtime.GOARCH, "same")
	var all sync.WaitGroup
	for i := range number {
		data := dockerArchive(t, map[string]v1.Image{
			fmt.Sprintf("same:%d", i):  same,
			fmt.Sprintf("other:%d", i): forPlatform(t, h, runtime.GOARCH, fmt.Sprint(i)),
		})
		all.Go(func() {
			_, err := s.Import(t.Context(), bytes.NewReader(data), image.ImportOptions{})
			if err != nil {
				t.Errorf("archive %d: %v", i, err)
			}
		})
	}

	all.Wait()
	if got, err := s.Get("same:0"); err != nil || len(got.Tags) != number {
		t.Errorf("%d tags, %v", len(got.Tags), err)
	}
	if list := s.List(); len(list) != number+1 {
		t.Errorf("%d images", len(list))
	}
}

func TestNoPartOfAnArchiveIsTakenForTheWhole(t *testing.T) {
	h := newHub(t)
	plain := dockerArchive(t, map[string]v1.Image{"one:1": forPlatform(t, h, runtime.GOARCH, "x")})
	compressed := zipped(plain)

	// A tar stream ends with two empty blocks, which its reader does not need.
	const blocks = 3 * 512
	for what, parts := range map[string][]byte{"plain": plain[:len(plain)-blocks], "compressed": compressed} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)

			const steps = 40
			for i := range steps {
				part := parts[:len(parts)*i/steps]
				if _, err := s.Import(t.Context(), bytes.NewReader(part), image.ImportOptions{}); err == nil {
					t.Errorf("the first %d bytes are imported", len(part))
				}
			}

			s.Close()
			nothingLeft(t, dir)
		})
	}
}
