package trivet

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/page"
)

// writeDocs has tests write the parts of documents that are made from what is there. They compare otherwise.
var writeDocs = os.Getenv("TRIVET_WRITE_DOCS") != ""

// maxDocWidth is the width of text. Tables, code and links cannot be wrapped.
const maxDocWidth = 100

// documents are all Markdown files.
func documents(t *testing.T) []string {
	t.Helper()
	var files []string
	patterns := []string{"*.md", "docs/*.md", "docs/*/*.md", "deploy/*.md", "deploy/*/*.md", "*/*/README.md"}
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

func readText(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestDocumentsFitTheScreen(t *testing.T) {
	for _, file := range documents(t) {
		code := false
		for i, line := range strings.Split(readText(t, file), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				code = !code
			}

			table := strings.HasPrefix(line, "|")
			link := !strings.Contains(strings.TrimSpace(line), " ") || strings.HasPrefix(line, "<")
			if !code && !table && !link && page.Width(line) > maxDocWidth {
				t.Errorf("%s:%d is wider than %d columns", file, i+1, maxDocWidth)
			}
		}
	}
}

func TestDocumentsArePlainEnglish(t *testing.T) {
	for _, file := range documents(t) {
		// It shows what to avoid.
		if file == "CONTRIBUTING.md" {
			continue
		}

		text := strings.Join(strings.Fields(readText(t, file)), " ")
		for _, w := range strangeWords {
			if at := w.phrase.FindStringIndex(text); at != nil {
				around := text[max(0, at[0]-30):min(len(text), at[1]+30)]
				t.Errorf("%s: %q: say %q", file, around, w.plain)
			}
		}
	}
}

// link finds the targets of Markdown links.
var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	for _, file := range documents(t) {
		for _, match := range link.FindAllStringSubmatch(readText(t, file), -1) {
			target := match[1]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), target)); err != nil {
				t.Errorf("%s: link to %s: %v", file, target, err)
			}
		}
	}
}

// adrHeadings are the sections of a decision, in order.
var adrHeadings = []string{"Context", "Decision", "Consequences", "Refused"}

var (
	adrTitle   = regexp.MustCompile(`^# (\d{4})\. (\S.*)$`)
	adrStatus  = regexp.MustCompile(`^Status: (accepted|replaced)\b.*$`)
	adrHeading = regexp.MustCompile(`(?m)^## (.*)$`)
)

func TestDecisionsHaveOneForm(t *testing.T) {
	for _, file := range decisions(t) {
		text := readText(t, file)
		lines := strings.SplitN(text, "\n", 4)
		title := adrTitle.FindStringSubmatch(lines[0])
		if title == nil || !strings.HasPrefix(filepath.Base(file), title[1]+"-") {
			t.Errorf("%s: the first line %q is not \"# NNNN. Title\" with the file's number", file, lines[0])
		}
		if len(lines) < 3 || !adrStatus.MatchString(lines[2]) {
			t.Errorf("%s: the third line is not \"Status: accepted\" or \"Status: replaced by NNNN\"", file)
		}

		var headings []string
		for _, match := range adrHeading.FindAllStringSubmatch(text, -1) {
			headings = append(headings, match[1])
		}
		if !slices.Equal(headings, adrHeadings) {
			t.Errorf("%s: sections %q, want %q", file, headings, adrHeadings)
		}
	}
}

func decisions(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("docs/adr/[0-9]*.md")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// adrParts are the ranges of numbers of each part, by the digits that they begin with.
var adrParts = []struct {
	name     string
	prefixes []string
}{
	{"The whole", []string{"00", "0962"}},
	{"trivet-cni and trivet-netd", []string{
		"01", "080", "087", "092", "0945", "0946", "0947", "0948", "0949", "0963", "0964", "0965",
		"0966", "0967", "0968",
	}},
	{"trivet-csi", []string{
		"02", "085", "090", "091", "0935", "0936", "0937", "0940", "0941", "0942", "0943", "0944", "095",
	}},
	{"trivet-cri and trivet-monitor", []string{"03", "0961"}},
	{"trivet-node", []string{"04", "086", "088"}},
	{"The test cluster", []string{"05"}},
	{"Conformance", []string{"06"}},
	{"Delivery, kind and kubeadm", []string{"07", "0930", "0931", "0932", "0960"}},
}

func TestIndexOfDecisionsIsComplete(t *testing.T) {
	compareSection(t, "docs/adr/README.md", "decisions", decisionIndex(t))
}

func TestEveryDecisionBelongsToAPart(t *testing.T) {
	for _, file := range decisions(t) {
		parts := 0
		for _, part := range adrParts {
			if hasAnyPrefix(filepath.Base(file), part.prefixes) {
				parts++
			}
		}
		if parts != 1 {
			t.Errorf("%s: its number is in the ranges of %d parts, want 1", file, parts)
		}
	}
}

func decisionIndex(t *testing.T) string {
	t.Helper()
	var index strings.Builder
	for _, part := range adrParts {
		fmt.Fprintf(&index, "## %s (%s)\n", part.name, numberRanges(part.prefixes))
		index.WriteString("| number | decision | status |\n| --- | --- | --- |\n")
		for _, file := range decisions(t) {
			base := filepath.Base(file)
			if !hasAnyPrefix(base, part.prefixes) {
				continue
			}

			lines := strings.SplitN(readText(t, file), "\n", 4)
			title := adrTitle.FindStringSubmatch(lines[0])
			if title == nil {
				continue
			}
			status := strings.TrimPrefix(lines[2], "Status: ")
			fmt.Fprintf(&index, "| [%s](%s) | %s | %s |\n", title[1], base, title[2], status)
		}
		index.WriteString("\n")
	}
	return index.String()
}

// numberRanges are the numbers of four digits that begin with the prefixes, which are in order: "0100-0199,
// 0935".
func numberRanges(prefixes []string) string {
	type span struct{ first, last int }
	var spans []span
	for _, prefix := range prefixes {
		free := 4 - len(prefix)
		first, _ := strconv.Atoi(prefix + strings.Repeat("0", free))
		last, _ := strconv.Atoi(prefix + strings.Repeat("9", free))
		if n := len(spans); n > 0 && spans[n-1].last+1 == first {
			spans[n-1].last = last
			continue
		}
		spans = append(spans, span{first, last})
	}

	var ranges []string
	for _, s := range spans {
		text := fmt.Sprintf("%04d", s.first)
		if s.last > s.first {
			text += fmt.Sprintf("-%04d", s.last)
		}
		ranges = append(ranges, text)
	}
	return strings.Join(ranges, ", ")
}

// compareSection compares what is between <!-- NAME --> and <!-- end of NAME --> with the text, or writes it.
func compareSection(t *testing.T, file, name, want string) {
	t.Helper()
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
	text := readText(t, file)
	before, rest, found := strings.Cut(text, begin)
	got, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no section between %q and %q", file, begin, end)
	}

	if got == want {
		return
	}
	if !writeDocs {
		t.Errorf("%s: the section %s is not what is there: run TRIVET_WRITE_DOCS=1 go test .", file, name)
		return
	}

	if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
