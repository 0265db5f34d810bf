package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCatalogNamesEachImageOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, i := range catalog() {
		for _, n := range i.names {
			if seen[n] {
				t.Errorf("%s is there twice", n)
			}

			seen[n] = true
		}
	}

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

// fakeInputs has a small file for each program and package.
func fakeInputs(t *testing.T) inputs {
	t.Helper()
	dir := t.TempDir()
	in := inputs{
		busybox:  []file{{path: "bin/busybox", mode: 0o755, data: []byte("busybox")}},
		bash:     []file{{path: "bin/bash", mode: 0o755, data: []byte("bash")}},
		netcat:   []file{{path: "bin/nc", mode: 0o755, data: []byte("nc")}},
		programs: programs{},
	}

	for _, name := range []string{
		"pause", "names", "applets", "webserver", "demo1", "demo2", "agnhost", "nonewprivs",
		"sample-apiserver", "etcd", "coredns", "metrics-server", "localhost.crt", "localhost.key",
	} {
		in.programs[name] = filepath.Join(dir, name)
		if err := os.WriteFile(in.programs[name], []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	return in
}

// digests builds the catalog and returns what the builder says: a line for each image.
func digests(t *testing.T, in inputs) []string {
	t.Helper()
	var lines []string
	b := &Builder{Say: func(_ string, args ...any) {
		lines = append(lines, args[0].(string)+" "+args[1].(interface{ String() string }).String())
	}}
	if err := b.write(filepath.Join(t.TempDir(), "layout"), catalog(), in); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestEqualInputsGiveEqualImagesAndNoTwoAreTheSame(t *testing.T) {
	in := fakeInputs(t)
	first, second := digests(t, in), digests(t, in)
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

func TestImageWhoseProgramIsMissingIsLeftOut(t *testing.T) {
	in := fakeInputs(t)
	in.programs["coredns"] = ""
	for _, line := range digests(t, in) {
		if strings.Contains(line, "coredns") {
			t.Errorf("%s was built", line)
		}
	}
}

func TestLayerThatNobodyMakesIsAnError(t *testing.T) {
	if _, err := (inputs{}).files("moon"); err == nil || !strings.Contains(err.Error(), `"moon"`) {
		t.Errorf("error %v", err)
	}
}
