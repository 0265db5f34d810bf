package main

import (
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/specs"
)

func TestOnlySpecsThatDidNotPassAreShown(t *testing.T) {
	var out strings.Builder
	passed := summarize(&out, []specs.Result{
		{Name: "A works", Outcome: specs.Passed},
		{Name: "B works", Outcome: specs.Failed, Message: "boom"},
	})
	if passed != 1 || out.String() != "failed  B works\n        boom\n" {
		t.Errorf("%d passed:\n%s", passed, out.String())
	}
}
