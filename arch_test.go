// Package trivet holds the rules of the house as tests: who may import whom, one package comment each, file
// and package sizes. The rules are checked by parsing the files, never by running the go command: go test
// would cache its answer wrongly.
package trivet

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/trivet-node/trivet"

// budgets
const (
	maxFileLines    = 400
	maxPackageFiles = 10
)

var parts = []string{"cni", "csi", "cri", "node"}

// clientGo are the only packages (and those below) that may speak to the Kubernetes API.
var clientGo = []string{"node", "csi/provision", "csi/cmd", "cni/netd", "cni/cmd/trivet-netd", "e2e"}

// internalMay is what leaf helpers may import beside the standard library and each other.
var internalMay = []string{"golang.org/x/sys/", "google.golang.org/grpc"}

type source struct {
	path    string // slash-separated, from the root of the repository
	dir     string
	file    *ast.File
	lines   int
	isTest  bool
	imports []string
}

func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		if d.IsDir() {
			if p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || hasOwnModule(p)) {
				return filepath.SkipDir
			}

			return nil
		}

		if !strings.HasSuffix(p, ".go") {
			return nil
		}

		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}

		f, err := parser.ParseFile(fset, p, data, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}

		s := source{
			path:   filepath.ToSlash(p),
			dir:    path.Dir(filepath.ToSlash(p)),
			file:   f,
			lines:  strings.Count(string(data), "\n"),
			isTest: strings.HasSuffix(p, "_test.go"),
		}

		for _, i := range f.Imports {
			s.imports = append(s.imports, strings.Trim(i.Path.Value, `"`))
		}

		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	return out
}

func hasOwnModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return dir != "." && err == nil
}

func within(dir string, roots ...string) bool {
	for _, r := range roots {
		if dir == r || strings.HasPrefix(dir, r+"/") {
			return true
		}
	}
	return false
}

func TestPartsMeetOnlyOverProtocols(t *testing.T) {
	for _, s := range sources(t) {
		own := strings.Split(s.dir, "/")[0]
		for _, imp := range s.imports {
			local, ok := strings.CutPrefix(imp, module+"/")
			if !ok {
				continue
			}

			target := strings.Split(local, "/")[0]
			switch {
			case target == own, target == "internal" && own != ".":
			case own == "internal":
				t.Errorf("%s imports %s: internal packages are leaves", s.path, imp)
			default:
				t.Errorf("%s imports %s: %s may import itself and internal only", s.path, imp, own)
			}
		}
	}
}

func TestInternalKnowsNoProtocol(t *testing.T) {
	for _, s := range sources(t) {
		if !within(s.dir, "internal") || s.isTest {
			continue
		}

		for _, imp := range s.imports {
			if strings.Contains(imp, ".") && !strings.HasPrefix(imp, module) &&
				!hasAnyPrefix(imp, internalMay) {
				t.Errorf("%s imports %s: internal may import the standard library and %v",
					s.path, imp, internalMay)
			}
		}
	}
}

func TestOnlyTheseSpeakToTheAPIServer(t *testing.T) {
	for _, s := range sources(t) {
		for _, imp := range s.imports {
			if strings.HasPrefix(imp, "k8s.io/client-go") && !within(s.dir, clientGo...) {
				t.Errorf("%s imports %s: client-go lives in %v only", s.path, imp, clientGo)
			}
			if strings.HasPrefix(imp, "k8s.io/kubernetes") {
				t.Errorf("%s imports %s: k8s.io/kubernetes belongs in nested modules below e2e/", s.path, imp)
			}
		}
	}
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

func TestEachPackageHasOneComment(t *testing.T) {
	docs, seen := map[string][]string{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.isTest && s.dir != "." {
			continue
		}

		seen[s.dir] = true
		if s.file.Doc != nil && strings.TrimSpace(s.file.Doc.Text()) != "" {
			docs[s.dir] = append(docs[s.dir], s.path)
		}
	}

	for dir := range seen {
		if n := len(docs[dir]); n != 1 {
			t.Errorf("package %s has %d package comments %v, want one", dir, n, docs[dir])
		}
	}
}

func TestFilesAndPackagesStaySmall(t *testing.T) {
	files := map[string]int{}
	for _, s := range sources(t) {
		if s.lines > maxFileLines {
			t.Errorf("%s has %d lines, more than %d: is it two things?", s.path, s.lines, maxFileLines)
		}
		if !s.isTest {
			files[s.dir]++
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
		if strings.HasPrefix(strings.TrimSpace(line), "replace ") {
			t.Errorf("go.mod: %s: a replace breaks everyone who imports or installs the module",
				strings.TrimSpace(line))
		}
	}
}
