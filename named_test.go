package trivet

import (
	"fmt"
	"go/doc"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Documents name tests, functions and packages. Whatever they name is there.

// namedTests are the tests of a line of a table: "`TestA` and `TestB` in cri/spec".
var namedTests = regexp.MustCompile(
	"((?:`(?:Test|Fuzz)\\w+`(?:, | and )?)+) in ((?:cni|cri|csi|e2e|internal|node|release)[\\w/-]*)")

func TestSecurityPageNamesTestsThatAreThere(t *testing.T) {
	if found := checkNamedTests(t, "docs/security.md"); found < 70 {
		t.Errorf("%d tests are named, want at least one for most lines", found)
	}
}

func TestSupportPageNamesTestsThatAreThere(t *testing.T) {
	if found := checkNamedTests(t, "docs/support.md"); found < 100 {
		t.Errorf("%d tests are named, want at least one for most lines", found)
	}
}

// clusterSteps is how many steps docs/csi-steps.md has.
const clusterSteps = 34

// Each step of a volume's way through a cluster is shown by a test, or the page says why not on a cluster.
func TestStepsOfVolumesAreShownByTestsThatAreThere(t *testing.T) {
	const file = "docs/csi-steps.md"
	checkNamedTests(t, file)

	text, step := readText(t, file), 0
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if number := strings.TrimSpace(cells[0]); len(cells) != 4 || number == "step" || number == "---" {
			continue
		}

		step++
		if got := strings.TrimSpace(cells[0]); got != fmt.Sprint(step) {
			t.Errorf("%s: row %d is of step %s", file, step, got)
		}
		if !namedTests.MatchString(cells[2]) && !strings.Contains(text, fmt.Sprintf("\n- %d: ", step)) {
			t.Errorf("%s: no test shows step %d on a cluster, and nothing says why", file, step)
		}
		if !namedTests.MatchString(cells[2] + cells[3]) {
			t.Errorf("%s: no test shows step %d", file, step)
		}
	}
	if step != clusterSteps {
		t.Errorf("%s has %d steps, want %d", file, step, clusterSteps)
	}
}

// suites are what shows a feature beside tests: sets of specs, and of seats, that CI or a person runs.
var suites = regexp.MustCompile(`\b(e2e\.test|critest|csi-sanity|make seats|make conformance)\b`)

func TestFeaturesAreShownBySomething(t *testing.T) {
	for i, line := range strings.Split(readText(t, "docs/support.md"), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") ||
			strings.HasPrefix(line, "| feature ") {
			continue
		}

		cells := strings.Split(strings.Trim(line, "|"), " | ")
		if len(cells) != 4 {
			t.Errorf("docs/support.md:%d has %d cells, want feature, state, since, shown by", i+1, len(cells))
			continue
		}

		state, shown := strings.TrimSpace(cells[1]), cells[3]
		if !slices.Contains([]string{"works", "partly", "not"}, state) {
			t.Errorf("docs/support.md:%d: %q is not works, partly or not", i+1, state)
		}
		if state == "works" && !namedTests.MatchString(shown) && !suites.MatchString(shown) {
			t.Errorf("docs/support.md:%d: neither a test nor a suite shows it: %q", i+1, shown)
		}
	}
}

// checkNamedTests reports tests that a document names and that do not exist. It returns how many it names.
func checkNamedTests(t *testing.T, file string) (found int) {
	t.Helper()
	separates := func(r rune) bool { return strings.ContainsRune("`, ", r) }
	for _, m := range namedTests.FindAllStringSubmatch(readText(t, file), -1) {
		there := testsOf(t, m[2])
		for name := range strings.FieldsFuncSeq(m[1], separates) {
			if name == "and" {
				continue
			}

			found++
			if !slices.Contains(there, name) {
				t.Errorf("%s: %s has no %s", file, m[2], name)
			}
		}
	}
	return found
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
		for _, m := range testFunc.FindAllStringSubmatch(readText(t, file), -1) {
			names = append(names, m[1])
		}
	}

	return names
}

// stop is a numbered item of docs/tour.md: "1. [cni/bridge/pod.go: setUp](../cni/bridge/pod.go)".
var stop = regexp.MustCompile(`(?m)^(\d+)\. \[([^\]:]+): ([^\]]+)\]\(([^)]*)\)`)

func TestStopsOfTheTourAreThere(t *testing.T) {
	functions := map[string][]string{}
	for _, s := range sources(t) {
		for _, fn := range s.Functions() {
			functions[s.Path] = append(functions[s.Path], fn.Name)
		}
	}

	text := readText(t, "docs/tour.md")
	for _, section := range strings.Split(text, "\n## ")[1:] {
		title, _, _ := strings.Cut(section, "\n")
		stops := stop.FindAllStringSubmatch(section, -1)
		if len(stops) < 8 || len(stops) > 12 {
			t.Errorf("%q has %d stops, want 8 to 12", title, len(stops))
		}

		for i, m := range stops {
			if m[1] != fmt.Sprint(i+1) || m[4] != "../"+m[2] {
				t.Errorf("%q: %q is not number %d, or its link leads elsewhere", title, m[0], i+1)
			}
			if !slices.Contains(functions[m[2]], m[3]) {
				t.Errorf("%q: %s has no function %s", title, m[2], m[3])
			}
		}
	}
}

// packageParts are the sections of the index of packages, by their first directory.
var packageParts = []string{"node", "cri", "cni", "csi", "internal", "e2e", "release"}

func TestIndexOfPackagesIsComplete(t *testing.T) {
	compareSection(t, "docs/architecture.md", "packages", packageIndex(t))
}

// packageIndex is a table for each part, with the first sentence of each package's comment.
func packageIndex(t *testing.T) string {
	t.Helper()
	comments := map[string]string{}
	for _, s := range ownSources(t) {
		if s.IsTest() {
			continue
		}

		comments[s.Dir()] += ""
		if s.File.Doc != nil {
			comments[s.Dir()] = s.File.Doc.Text()
		}
	}

	var index strings.Builder
	for _, part := range packageParts {
		fmt.Fprintf(&index, "### %s\n| package | what it does |\n| --- | --- |\n", part)
		for _, dir := range slices.Sorted(keysBelow(comments, part)) {
			name := strings.TrimPrefix(dir, part+"/")
			fmt.Fprintf(&index, "| [%s](../%s) | %s |\n", name, dir, sentence(comments[dir]))
		}
		index.WriteString("\n")
	}
	return index.String()
}

// keysBelow are the keys that are paths below a directory.
func keysBelow(m map[string]string, dir string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if strings.HasPrefix(key, dir+"/") && !yield(key) {
				return
			}
		}
	}
}

// opening is how the comment of a package begins.
var opening = regexp.MustCompile(`^(Package|Command) [\w-]+ (is |has )?`)

// brief is the length from which a sentence ends at its first colon.
const brief = 120

// sentence is the first one of a package's comment, without the words that all begin with.
func sentence(comment string) string {
	text := opening.ReplaceAllString((&doc.Package{}).Synopsis(comment), "")
	before, _, found := strings.Cut(text, ": ")
	if found && len(text) > brief && strings.Count(before, "(") == strings.Count(before, ")") {
		text = before
	}
	return strings.TrimRight(text, ".:")
}
