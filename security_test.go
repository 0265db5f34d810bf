package trivet

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// namedTests are the tests of a line of docs/security.md: "`TestA` and `TestB` in cri/spec".
var namedTests = regexp.MustCompile(
	"((?:`(?:Test|Fuzz)\\w+`(?:, | and )?)+) in ((?:cni|cri|csi|e2e|internal|node)[\\w/-]*)")

func TestSecurityPageNamesTestsThatAreThere(t *testing.T) {
	page, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}

	separates := func(r rune) bool { return strings.ContainsRune("`, ", r) }
	found := 0
	for _, m := range namedTests.FindAllStringSubmatch(string(page), -1) {
		there := testsOf(t, m[2])
		for name := range strings.FieldsFuncSeq(m[1], separates) {
			if name == "and" {
				continue
			}

			found++
			if !slices.Contains(there, name) {
				t.Errorf("docs/security.md: %s has no %s", m[2], name)
			}
		}
	}

	if found < 70 {
		t.Errorf("%d tests are named, want at least one for most lines", found)
	}
}

var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)

// testsOf are the tests of a package, whatever it takes to run them.
func testsOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}

	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}

		for _, m := range testFunc.FindAllStringSubmatch(string(source), -1) {
			names = append(names, m[1])
		}
	}

	return names
}
