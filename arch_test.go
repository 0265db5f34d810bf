// Package trivet holds the rules of the house as tests: who may import whom and how packages are made
// (arch_test.go), what a page looks like (page_test.go), and that the documents say what is there
// (docs_test.go). The rules are checked by parsing the files, never by running the go command: go test does
// not see what another process reads, and would keep an answer that is no longer true.
package trivet

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/internal/page"
)

const module = "github.com/trivet-node/trivet"

// maxPackageFiles is the number of files that a package of one noun needs at most.
const maxPackageFiles = 10

// criSpeakers speak CRI: the server and its clients.
var criSpeakers = []string{
	"cri", "node/runtime", "node/criconfig", "release/installer/pods", "release/installer/carry", "e2e",
}

// mayImport names, for libraries that bring a protocol or a server into the house, the only directories whose
// packages (and those below) may import them.
var mayImport = map[string][]string{
	"k8s.io/client-go":                       {"internal/kube", "e2e"},
	"k8s.io/cri-api":                         criSpeakers,
	"github.com/container-storage-interface": {"csi", "node/csiplugin", "node/csivolume", "e2e"},
	"github.com/containernetworking/cni":     {"cni", "cri/network", "e2e"},
	"k8s.io/kubernetes":                      {},

	// What each part counts is a collector in the part; how it is served is decided once.
	"github.com/prometheus/client_golang/prometheus/": {"internal/metric"},
}

// internalMay is what the packages of internal may import beside the standard library and each other;
// internal/kube may import Kubernetes' own as well.
// internal/metric serves the metrics of all daemons, and bounds who may connect; internal/ociimage writes
// images.
var internalMay = []string{
	"golang.org/x/sys/",
	"google.golang.org/grpc",
	"github.com/moby/sys/mountinfo",
	"github.com/prometheus/client_golang/prometheus",
	"golang.org/x/net/netutil",
	"go.opentelemetry.io/",
	"github.com/google/go-containerregistry/pkg/v1",
	"github.com/fsnotify/fsnotify",
}

// notNouns are names of packages that say nothing of what is in them.
var notNouns = []string{"util", "utils", "common", "helpers", "manager", "base", "types", "impl", "misc"}

var read = sync.OnceValues(func() ([]page.Source, error) { return page.Read(os.DirFS(".")) })

// sources are the files of the whole repository, those of nested modules included.
func sources(t *testing.T) []page.Source {
	t.Helper()
	all, err := read()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ownSources are the files of this module.
func ownSources(t *testing.T) []page.Source {
	t.Helper()
	nested, err := filepath.Glob("*/*/go.mod")
	if err != nil {
		t.Fatal(err)
	}

	deeper, err := filepath.Glob("*/*/*/go.mod")
	if err != nil {
		t.Fatal(err)
	}

	var modules []string
	for _, file := range append(nested, deeper...) {
		modules = append(modules, filepath.Dir(file))
	}

	var own []page.Source
	for _, s := range sources(t) {
		if !within(s.Dir(), modules...) {
			own = append(own, s)
		}
	}
	return own
}

func within(dir string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return dir == root || strings.HasPrefix(dir, root+"/")
	})
}

func TestPartsMeetOnlyOverProtocols(t *testing.T) {
	for _, s := range ownSources(t) {
		own, _, _ := strings.Cut(s.Dir(), "/")
		for _, imported := range s.Imports() {
			local, ok := strings.CutPrefix(imported, module+"/")
			if !ok {
				continue
			}

			part, _, _ := strings.Cut(local, "/")
			switch {
			case part == own, part == "internal":
			case own == "internal":
				t.Errorf("%s imports %s: internal packages import none of the parts", s.Path, imported)
			default:
				t.Errorf("%s imports %s: %s may import itself and internal only", s.Path, imported, own)
			}
		}
	}
}

func TestInternalKnowsNoProtocol(t *testing.T) {
	for _, s := range ownSources(t) {
		if !within(s.Dir(), "internal") || within(s.Dir(), "internal/kube") || s.IsTest() {
			continue
		}

		for _, imported := range s.Imports() {
			standard := !strings.Contains(imported, ".")
			if !standard && !strings.HasPrefix(imported, module) && !hasAnyPrefix(imported, internalMay) {
				t.Errorf("%s imports %s: internal may import the standard library and %v",
					s.Path, imported, internalMay)
			}
		}
	}
}

func TestEachServerHasOneDoor(t *testing.T) {
	for _, s := range ownSources(t) {
		if s.IsTest() {
			continue
		}

		for _, imported := range s.Imports() {
			for library, doors := range mayImport {
				if strings.HasPrefix(imported, library) && !within(s.Dir(), doors...) {
					t.Errorf("%s imports %s: only %v may", s.Path, imported, doors)
				}
			}
		}
	}
}

func hasAnyPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(s, prefix) })
}

func TestEachPackageHasOneComment(t *testing.T) {
	comments := map[string][]string{}
	for _, s := range ownSources(t) {
		if s.IsTest() && s.Dir() != "." {
			continue
		}

		with := comments[s.Dir()]
		if s.File.Doc != nil && strings.TrimSpace(s.File.Doc.Text()) != "" {
			with = append(with, s.Path)
		}
		comments[s.Dir()] = with
	}

	for dir, files := range comments {
		if len(files) != 1 {
			t.Errorf("package %s has %d package comments %v, want one", dir, len(files), files)
		}
	}
}

func TestPackagesAreOneNoun(t *testing.T) {
	files := map[string]int{}
	for _, s := range ownSources(t) {
		if slices.Contains(notNouns, s.File.Name.Name) {
			t.Errorf("%s is of package %s: name it after what is in it", s.Path, s.File.Name.Name)
		}
		if !s.IsTest() {
			files[s.Dir()]++
		}
	}

	for dir, n := range files {
		if n > maxPackageFiles {
			t.Errorf("package %s has %d files, more than %d: is it two packages?", dir, n, maxPackageFiles)
		}
	}
}

func TestProductHasNoReplace(t *testing.T) {
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}

	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "replace ") {
			t.Errorf("go.mod: %s: a replace breaks everyone who imports or installs the module", line)
		}
	}
}
