package image_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/trivet-node/trivet/cri/image"
)

// two returns a store of two images, a:1 and b:1, that have no digest of a registry.
func two(t *testing.T, dir string) (s *image.Store, a, b string) {
	t.Helper()
	h := newHub(t)
	s = openStore(t, dir)
	importInto(t, s, dockerArchive(t, map[string]v1.Image{
		"a:1": forPlatform(t, h, runtime.GOARCH, "a"),
		"b:1": forPlatform(t, h, runtime.GOARCH, "b"),
	}))

	ids := make(map[string]string)
	for _, name := range []string{"a:1", "b:1"} {
		img, err := s.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = img.ID
	}

	return s, ids["a:1"], ids["b:1"]
}

func TestImageGetsFurtherNamesThatStay(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := two(t, dir)

	// By name, by ID and by the beginning of the ID; repeating it changes nothing.
	for _, from := range []string{"a:1", a, strings.TrimPrefix(a, "sha256:")[:12], a} {
		if err := s.Tag(from, []string{"c", "quay.io/d/e:2"}, false); err != nil {
			t.Errorf("from %s: %v", from, err)
		}
	}

	s.Close()
	for _, s := range []*image.Store{s, openStore(t, dir)} {
		got, err := s.Get("quay.io/d/e:2")
		want := "docker.io/library/a:1 docker.io/library/c:latest quay.io/d/e:2"
		if err != nil || got.ID != a || strings.Join(got.Tags, " ") != want {
			t.Errorf("%s with tags %v, %v; want %s with %s", got.ID, got.Tags, err, a, want)
		}
	}
}

func TestNameOfAnotherImageIsMovedOnlyIfThatIsSaid(t *testing.T) {
	s, a, b := two(t, t.TempDir())
	if err := s.Tag("a:1", []string{"c:1", "b:1"}, false); err == nil || !strings.Contains(err.Error(), b) {
		t.Errorf("error %v, want one that says whose the name is", err)
	}
	if _, err := s.Get("c:1"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("a part of the names was given: %v", err)
	}

	if err := s.Tag("a:1", []string{"b:1"}, true); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get("b:1"); err != nil || got.ID != a {
		t.Errorf("b:1 is %s, %v", got.ID, err)
	}
	if got, err := s.Get(b); err != nil || len(got.Tags) != 0 {
		t.Errorf("the other image has tags %v, %v", got.Tags, err)
	}
}

func TestOnlyAKnownDigestIsAName(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	reference, img := h.push(t, "thing:1", map[string]string{"a": "1"})
	pull(t, s, reference)
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}

	if err := s.Tag(reference, []string{"other@" + d.String()}, false); err != nil {
		t.Errorf("under another name: %v", err)
	}
	if _, err := s.Get("other@" + d.String()); err != nil {
		t.Error(err)
	}

	wrong := "other@sha256:" + strings.Repeat("0", 64)
	if err := s.Tag(reference, []string{wrong}, true); err == nil || !strings.Contains(err.Error(), wrong) {
		t.Errorf("a digest that it did not come by: %v", err)
	}
}

func TestWhatCannotBeTaggedIsNamed(t *testing.T) {
	s, _, _ := two(t, t.TempDir())
	for from, to := range map[string]string{"absent:1": "c:1", "a:1": "A B"} {
		if err := s.Tag(from, []string{to}, true); err == nil || !strings.Contains(err.Error(), from) &&
			!strings.Contains(err.Error(), to) {
			t.Errorf("tag %s %s: %v", from, to, err)
		}
	}
}

func TestImageGoesWithItsLastName(t *testing.T) {
	dir := t.TempDir()
	s, _, b := two(t, dir)
	if err := s.Tag("a:1", []string{"a:2"}, false); err != nil {
		t.Fatal(err)
	}

	for _, step := range []struct{ remove, stays string }{
		{"a:1", "a:2 b:1"},
		{"a:2", "b:1"},
		{b, ""},
	} {
		if err := s.Untag(step.remove); err != nil {
			t.Errorf("remove %s: %v", step.remove, err)
		}
		if err := s.Untag(step.remove); !errors.Is(err, image.ErrNotFound) {
			t.Errorf("remove %s again: %v", step.remove, err)
		}

		for name := range strings.FieldsSeq("a:1 a:2 b:1") {
			_, err := s.Get(name)
			if stays := strings.Contains(step.stays, name); stays != (err == nil) {
				t.Errorf("after %s is removed, %s: %v", step.remove, name, err)
			}
		}
	}

	s.Close()
	nothingLeft(t, dir)
}

func TestPulledImageGoesWithItsTagThoughItHasADigest(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	s := openStore(t, dir)
	reference, img := h.push(t, "thing:1", map[string]string{"a": "1"})
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}

	pull(t, s, reference)
	byDigest := strings.TrimSuffix(reference, ":1") + "@" + d.String()
	if err := s.Untag(byDigest); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(reference); err != nil {
		t.Errorf("the tag went with the digest: %v", err)
	}

	pull(t, s, byDigest)
	if err := s.Untag(reference); err != nil {
		t.Fatal(err)
	}

	s.Close()
	nothingLeft(t, dir)
}
