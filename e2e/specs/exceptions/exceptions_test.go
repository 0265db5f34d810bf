package exceptions

import (
	"maps"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/specs"
)

func TestCommittedExceptionsAreOfTheSet(t *testing.T) {
	all, err := Committed()
	if err != nil {
		t.Fatal(err)
	}

	_, names := specs.Conformance()
	inSet := map[string]bool{}
	for _, n := range names {
		inSet[n] = true
	}

	for n, reason := range all {
		if !inSet[n] {
			t.Errorf("%s (%s) is not in the conformance set", n, reason)
		}
	}
}

func TestReasonIsThatOfTheNamesBelowIt(t *testing.T) {
	const text = "# all\n\nkernel: no dummy links\n[sig-a] A\n[sig-a] B\n\nmachine: 2 cores\n[sig-b] C\n"
	got, err := Parse(text)
	want := Exceptions{
		"[sig-a] A": "kernel: no dummy links",
		"[sig-a] B": "kernel: no dummy links",
		"[sig-b] C": "machine: 2 cores",
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestExceptionWithoutAReasonIsAnError(t *testing.T) {
	for text, fault := range map[string]string{
		"[sig-a] A\n":                        "line 1: \"[sig-a] A\" has no reason",
		"kernel: x\n[sig-a] A\n[sig-a] A\n":  "line 3: \"[sig-a] A\" is there twice",
		"because we like it so\n[sig-a] A\n": "line 1: \"because we like it so\" is neither",
		"kernel:\n[sig-a] A\n":               "line 1: \"kernel:\" is neither",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%q: error %v, want %q", text, err, fault)
		}
	}
}
