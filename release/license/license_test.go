package license

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLicensesOfWhatIsLinkedAreCollected(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}

	text, err := Collector{Dir: "../.."}.Collect(t.Context(), []string{self})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\nGo\n\nCopyright") {
		t.Errorf("Go's own is missing in\n%.2000s", text)
	}
}

func TestDocumentsAreKnownByTheirNames(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"LICENSE", "LICENCE.txt", "license.md", "COPYING", "NOTICE", "LICENSE-APACHE", "PATENTS",
		"licenses.go", "NOTICES.go", "README.md",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	texts, err := documents(dir)
	if err != nil {
		t.Fatal(err)
	}

	slices.Sort(texts)
	want := []string{"COPYING", "LICENCE.txt", "LICENSE", "LICENSE-APACHE", "NOTICE", "PATENTS", "license.md"}
	if !slices.Equal(texts, want) {
		t.Errorf("documents %q, want %q", texts, want)
	}
}

func TestATextIsThereOnceBelowAllWhoHaveIt(t *testing.T) {
	text := string(join(map[string][]string{"Apache": {"a@v1", "b@v2"}, "MIT": {"a@v1"}}))
	if strings.Count(text, "Apache") != 1 || !strings.Contains(text, "a@v1\nb@v2\n\nApache\n") {
		t.Errorf("text\n%s", text)
	}
}
