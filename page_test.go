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

// wideByNature are files whose lines are data of others that cannot be broken.
var wideByNature = []string{}

// manyMethods are types whose number of methods a protocol decides.
var manyMethods = map[string]string{
	"cri/server.Server": "CRI's RuntimeService has one for each call",
}

// sleepers are the tests that may call time.Sleep, and why. In those of testing/synctest no time passes.
var sleepers = map[string]string{
	"cri/cmd/trivet-cri/kill_root_test.go": "the instant of a kill is a random one",
	"cri/streaming/spdy_root_test.go":      "a client that reads slowly is what is tested",
}

// plainWords are phrases that readers stumble over, with what the Go standard library says instead.
var plainWords = map[*regexp.Regexp]string{
	regexp.MustCompile(`\btells? whether\b`):                                   "reports whether",
	regexp.MustCompile(`\bfor ever\b`):                                         "forever",
	regexp.MustCompile(`\banew\b`):                                             "again",
	regexp.MustCompile(`\b(tell|tells|told) of\b`):                             "reports, describes",
	regexp.MustCompile(`\b(see|sees) to it that\b`):                            "makes sure that",
	regexp.MustCompile(`\b[Ww]hoever\b`):                                       "the caller, the process that, ...",
	regexp.MustCompile(`\bagain and again\b`):                                  "periodically, repeatedly",
	regexp.MustCompile(`\bhas not (a|an|the)\b`):                               "does not have",
	regexp.MustCompile(`\b[Ww]hat must outlive\b`):                             "name the thing",
	regexp.MustCompile(`\b(is|are) no (directory|file|name|number|address)\b`): "is not a",
}

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
		if typ.Methods > maxMethods && manyMethods[name] == "" {
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
		if strings.HasPrefix(s.Path, "page_test") {
			continue
		}
		for _, group := range s.File.Comments {
			text := strings.Join(strings.Fields(group.Text()), " ")
			for phrase, plain := range plainWords {
				if found := phrase.FindString(text); found != "" {
					t.Errorf("%s: %q in the comment %.60q...: say %q", s.Path, found, text, plain)
				}
			}
		}
	}
}
