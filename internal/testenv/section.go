package testenv

import (
	"os"
	"strings"
	"testing"
)

// Section fails the test if what a page has between <!-- NAME --> and <!-- end of NAME --> is not what is
// wanted, or writes that into the page if TRIVET_WRITE_DOCS is set.
func Section(tb testing.TB, page, name, want string) {
	tb.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		tb.Fatal(err)
	}

	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
	before, rest, found := strings.Cut(string(data), begin)
	have, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		tb.Fatalf("%s has no section between %q and %q", page, begin, end)
	}

	switch {
	case have == want:
	case os.Getenv("TRIVET_WRITE_DOCS") == "":
		tb.Errorf("%s is not what the results say: repeat this test with TRIVET_WRITE_DOCS=1", page)
	default:
		if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}
