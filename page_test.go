package trivet

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/page"
)

// The limits of a page. CONTRIBUTING.md shows each with an example.
const (
	maxWidth         = 110
	maxFileLines     = 400
	maxFunctionLines = 60
	maxMethods       = 25
)

// sleepers are the tests that may call time.Sleep, and why. In those of testing/synctest no time passes.
var sleepers = map[string]string{
	"cri/cmd/trivet-cri/kill_root_test.go": "the instant of a kill is a random one",
	"cri/streaming/spdy_root_test.go":      "a client that reads slowly is what is tested",
}

// strange is a phrase that readers stumble over, with what the Go standard library says instead.
type strange struct {
	phrase *regexp.Regexp
	plain  string
}

var strangeWords = []strange{
	{words(`tells? whether`), "reports whether"},
	{words(`for ever`), "forever"},
	{words(`anew`), "again"},
	{words(`(tell|tells|told) of`), "reports, describes"},
	{words(`(see|sees) to it that`), "makes sure that"},
	{words(`[Ww]hoever`), "the caller, the process that, ..."},
	{words(`again and again`), "periodically, repeatedly"},
	{words(`has not (a|an|the)`), "does not have"},
	{words(`[Ww]hat must outlive`), "name the thing"},
	{words(`(is|are) no (directory|file|name|number|address)`), "is not a"},
}

func words(pattern string) *regexp.Regexp { return regexp.MustCompile(`\b` + pattern + `\b`) }

func TestLinesFitThePage(t *testing.T) {
	for _, s := range sources(t) {
		for _, line := range s.Wide(maxWidth) {
			t.Errorf("%s:%d is wider than %d columns (tab = 4)", s.Path, line, maxWidth)
		}
	}
}

func TestFilesStayShort(t *testing.T) {
	for _, s := range sources(t) {
		if n := len(s.Lines); n > maxFileLines {
			t.Errorf("%s has %d lines, more than %d: is it two things?", s.Path, n, maxFileLines)
		}
	}
}

func TestFunctionsAreStepsInParagraphs(t *testing.T) {
	for _, s := range sources(t) {
		for _, fn := range s.Functions() {
			if fn.Length > maxFunctionLines {
				t.Errorf("%s:%d: %s has %d lines, more than %d: which of its steps has a name?",
					s.Path, fn.Line, fn.Name, fn.Length, maxFunctionLines)
			}
			if fn.Dense() {
				t.Errorf("%s:%d: %s has %d lines and no blank line: where does a step end?",
					s.Path, fn.Line, fn.Name, fn.Length)
			}
		}
	}
}

func TestLiteralsShowTheirFields(t *testing.T) {
	for _, s := range sources(t) {
		for _, line := range s.Crowded() {
			t.Errorf("%s:%d: a literal of four or more fields has one field a line", s.Path, line)
		}
	}
}

func TestCommentsStandAbove(t *testing.T) {
	for _, s := range sources(t) {
		if s.IsTest() {
			continue
		}
		for _, line := range s.Behind() {
			t.Errorf("%s:%d: the comment stands behind what it explains, not above it", s.Path, line)
		}
	}
}

func TestTypesStaySmall(t *testing.T) {
	for _, typ := range page.Types(sources(t)) {
		name := typ.Dir + "." + typ.Name
		if typ.Methods > maxMethods {
			t.Errorf("%s has %d methods, more than %d: which nouns are in it?", name, typ.Methods, maxMethods)
		}
	}
}

func TestNothingSleepsToWait(t *testing.T) {
	for _, s := range sources(t) {
		virtual := slices.Contains(s.Imports(), "testing/synctest")
		if virtual || sleepers[s.Path] != "" {
			continue
		}

		for _, line := range s.Calls("time", "Sleep") {
			t.Errorf("%s:%d: wait for an event, or for a timer and the context", s.Path, line)
		}
	}
}

func TestCommentsArePlainEnglish(t *testing.T) {
	for _, s := range sources(t) {
		if s.Path == "page_test.go" {
			continue
		}

		for _, group := range s.File.Comments {
			text := strings.Join(strings.Fields(group.Text()), " ")
			for _, w := range strangeWords {
				if found := w.phrase.FindString(text); found != "" {
					t.Errorf("%s: %q in the comment %.60q...: say %q", s.Path, found, text, w.plain)
				}
			}
		}
	}
}
