package images

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// catalog is all images of all sets, each once.
func catalog() []image {
	var all []image
	seen := map[string]bool{}
	for _, set := range sets {
		for _, i := range set.images {
			if !seen[i.names[0]] {
				all = append(all, i)
			}

			seen[i.names[0]] = true
		}
	}
	return all
}

func names(t *testing.T) map[string]bool {
	t.Helper()
	seen := map[string]bool{}
	for _, i := range catalog() {
		for _, n := range i.names {
			if seen[n] {
				t.Errorf("%s is there twice", n)
			}

			seen[n] = true
		}
	}

	return seen
}

func TestImageOfTwoSetsIsTheSameInBoth(t *testing.T) {
	first := map[string]image{}
	for _, set := range sets {
		for _, i := range set.images {
			if other, ok := first[i.names[0]]; ok && !reflect.DeepEqual(i, other) {
				t.Errorf("%s of the set %s is not what another set has", i.names[0], set.name)
			}

			first[i.names[0]] = i
		}
	}
}

func TestCatalogNamesEachImageOnce(t *testing.T) {
	seen := names(t)
	for _, n := range []string{
		"registry.k8s.io/pause:3.10.2",
		"registry.k8s.io/e2e-test-images/agnhost:2.66.1",
		"docker.io/trivet/demo:2",
	} {
		if !seen[n] {
			t.Errorf("%s is missing", n)
		}
	}
}

// TestEachImageThatTheSuiteNamesIsBuiltOrLeftOutForAReason goes by what e2e.test --list-images prints, which
// is kept in testdata, and by docs/images.md, which must name what is left out.
func TestEachImageThatTheSuiteNamesIsBuiltOrLeftOutForAReason(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "list-images.txt"))
	if err != nil {
		t.Fatal(err)
	}

	document, err := os.ReadFile("../../docs/images.md")
	if err != nil {
		t.Fatal(err)
	}

	built, listed := names(t), map[string]bool{}
	for name := range strings.FieldsSeq(string(text)) {
		listed[name] = true
		if built[name] == (LeftOut[name] != "") {
			t.Errorf("%s is built: %v, and left out for the reason %q", name, built[name], LeftOut[name])
		}
	}

	for name := range LeftOut {
		if !listed[name] || !strings.Contains(string(document), filepath.Base(name)) {
			t.Errorf("%s is left out: the suite does not name it (%v), or docs/images.md",
				name, !listed[name])
		}
	}
}

func TestEachLayerOfTheCatalogHasAMaker(t *testing.T) {
	makers, used := layers(), map[string]bool{}
	for _, image := range catalog() {
		for _, layer := range image.layers {
			used[layer] = true
			if makers[layer] == nil && !strings.HasPrefix(layer, "mark ") {
				t.Errorf("image %s: nobody makes the layer %q", image.names[0], layer)
			}
		}
	}

	for layer := range makers {
		if !used[layer] {
			t.Errorf("no image has the layer %q", layer)
		}
	}
}

// withFakeLayers is an assembly whose layers are one file each.
func withFakeLayers(say func(string, ...any)) *assembly {
	makers := map[string]maker{}
	for name := range layers() {
		makers[name] = fixed(file{Path: "x", Mode: 0o644, Data: []byte(name)})
	}
	return &assembly{makers: makers, say: say}
}

// digests builds the catalog and returns what is said: a line for each image.
func digests(t *testing.T) []string {
	t.Helper()
	var lines []string
	a := withFakeLayers(func(_ string, args ...any) {
		lines = append(lines, args[0].(string)+" "+args[1].(interface{ String() string }).String())
	})
	if err := a.write(t.Context(), filepath.Join(t.TempDir(), "layout"), catalog()); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestEqualInputsGiveEqualImagesAndNoTwoAreTheSame(t *testing.T) {
	first, second := digests(t), digests(t)
	if strings.Join(first, "\n") != strings.Join(second, "\n") {
		t.Errorf("first:\n%s\nthen:\n%s", strings.Join(first, "\n"), strings.Join(second, "\n"))
	}
	if len(first) != len(catalog()) {
		t.Errorf("%d images, want %d", len(first), len(catalog()))
	}

	seen := map[string]string{}
	for _, line := range first {
		name, digest, _ := strings.Cut(line, " ")
		if same := seen[digest]; same != "" {
			t.Errorf("%s and %s are one image, which critest could not tell apart", same, name)
		}

		seen[digest] = name
	}
}

func TestLayerThatNobodyMakesIsAnError(t *testing.T) {
	_, err := withFakeLayers(nil).files(t.Context(), "moon")
	if err == nil || !strings.Contains(err.Error(), `"moon"`) {
		t.Errorf("error %v", err)
	}
}

func TestSetThatIsNotThereIsRefusedWithTheNamesOfThoseThatAre(t *testing.T) {
	err := new(Builder).Build(context.Background(), "moon", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "storage") {
		t.Errorf("error %v", err)
	}
}

func TestImageIsServedAsTheRegistryOfThePublishedSuiteFindsIt(t *testing.T) {
	a := withFakeLayers(nil)
	a.made = map[string]v1.Layer{}
	files, err := registryOf("pause", pauseImage)(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}

	// The index, the manifest, the configuration and a layer, and the tag that has the digest of the first.
	byPath := map[string]string{}
	for _, f := range files {
		byPath[f.Path] = string(f.Data)
	}

	digest := strings.TrimSpace(byPath["var/registry/pause/manifests/testing"])
	hex := strings.TrimPrefix(digest, "sha256:")
	index := byPath["var/registry/pause/manifests/sha256/"+hex[:2]+"/"+hex+"/data"]
	if len(files) != 5 || !strings.Contains(index, `"manifests"`) {
		t.Errorf("tag %q of the index %q, %d files", digest, index, len(files))
	}
}

// TestVersionsOfKubernetesAreThoseThatAreBuilt goes by the modules of the control planes.
func TestVersionsOfKubernetesAreThoseThatAreBuilt(t *testing.T) {
	for module, version := range map[string]string{
		"go.mod":         kubernetesVersion,
		"skew/v1.36.mod": earlierVersion,
	} {
		text, err := os.ReadFile(filepath.Join("../controlplane", module))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "\tk8s.io/kubernetes "+version+"\n") {
			t.Errorf("e2e/controlplane/%s does not require k8s.io/kubernetes %s", module, version)
		}
	}
}
