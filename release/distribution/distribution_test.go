package distribution

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/internal/tarfile"
	"github.com/trivet-node/trivet/release/part"
)

// newWriter has a few bytes in the place of each program, in directories of its own.
func newWriter(t *testing.T) *writer {
	t.Helper()
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}

	w := &writer{
		Config: Config{
			Version:  "v1.2.3-rc.1",
			Revision: "0123456",
			Time:     time.Unix(1_700_000_000, 0),
			Source:   source,
			Programs: t.TempDir(),
			Say:      t.Logf,
		},
		dir:      t.TempDir(),
		tools:    map[string]tools{},
		lists:    map[string][]byte{},
		licenses: []byte("a license\n"),
	}
	for _, arch := range Architectures {
		for _, p := range part.Parts {
			for _, program := range p.Shipped() {
				file := w.program(arch, program.Name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(program.Name+arch), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
	}

	return w
}

// sums writes all files of a version in a place of its own, and returns their sums.
func sums(t *testing.T) string {
	t.Helper()
	w := newWriter(t)
	for _, p := range part.Parts {
		w.lists[p.Name] = []byte("what is in " + p.Name)
		for _, arch := range Architectures {
			var t tools
			for _, tool := range slices.Sorted(maps.Keys(p.Image.Tools)) {
				t.files = append(t.files, tarfile.File{Path: tool, Mode: 0o755, Data: []byte(tool + arch)})
			}
			w.tools[p.Name+"/"+arch] = t
		}
	}

	steps := []func(context.Context) error{w.writePrograms, w.writeImages, w.writePackages, w.writeArchive}
	for _, step := range steps {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	text, err := os.ReadFile(filepath.Join(w.dir, sumsFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEqualInputsInTwoPlacesMakeEqualFiles is of all that is delivered but SBOMs (see release/sbom) and what
// Go and Debian build (make dist-twice).
func TestEqualInputsInTwoPlacesMakeEqualFiles(t *testing.T) {
	one := sums(t)
	before := syscall.Umask(0o077)
	defer syscall.Umask(before)

	two := sums(t)
	if diff := cmp.Diff(one, two); diff != "" {
		t.Errorf("the sums of two builds differ:\n%s", diff)
	}
	images := strings.Count(one, ".oci.tar\n")
	if images != len(part.Parts) || !strings.Contains(one, "trivet_v1.2.3-rc.1.tar.gz\n") {
		t.Errorf("not all files have sums:\n%s", one)
	}
}

func TestAllThatAPartNamesIsThere(t *testing.T) {
	w := newWriter(t)
	for _, p := range part.Parts {
		if _, err := w.debianPackage(p, "amd64"); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}

		wanted := []string{"README.md", p.Service.Unit}
		for _, c := range p.Configuration {
			wanted = append(wanted, c.Source)
		}
		for _, name := range wanted {
			if _, err := os.Stat(w.deployed(p, name)); err != nil {
				t.Error(err)
			}
		}

		for _, program := range p.Shipped() {
			if _, err := os.Stat(filepath.Join(w.Source, program.Source)); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestACandidateComesBeforeItsVersion(t *testing.T) {
	if got := newWriter(t).debianVersion(); got != "1.2.3~rc.1" {
		t.Errorf("version %s", got)
	}
}

func TestAVersionThatIsNoneIsRefused(t *testing.T) {
	for _, version := range []string{"", "1.2.3", "v1", "v1.2.3/..", "v1.2.3 x"} {
		dir := filepath.Join(t.TempDir(), "dist")
		err := Write(t.Context(), Config{Version: version}, dir)
		if err == nil || !strings.Contains(err.Error(), "version") {
			t.Errorf("%q: %v", version, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%q: files were written", version)
		}
	}
}

func TestSumsAndTheArchiveHaveAllFiles(t *testing.T) {
	w := newWriter(t)
	if err := w.write("packages/x.deb", 0o644, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := w.writeArchive(t.Context()); err != nil {
		t.Fatal(err)
	}

	sums, err := os.ReadFile(filepath.Join(w.dir, sumsFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"packages/x.deb\n",
		"deploy/cni/kustomization.yaml\n",
		"deploy/kind/csi/kustomization.yaml\n",
		"trivet_v1.2.3-rc.1.tar.gz\n",
	} {
		if !strings.Contains(string(sums), "  "+want) {
			t.Errorf("no sum of %s", want)
		}
	}
	if strings.Contains(string(sums), "Dockerfile") {
		t.Error("what builds an image from sources is delivered")
	}
}
