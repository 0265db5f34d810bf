package results

import (
	"os"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/specs/suite"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestNothingIsAddedAfterAWriteThatFailed(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		testenv.Skip(t, "there is no /dev/full: %v", err)
	}
	defer full.Close()

	log := &Log{file: full, set: Set{}}
	r := suite.Result{Name: "A", Outcome: suite.Passed}
	first := log.Add(r, false)
	if first == nil || !strings.Contains(first.Error(), "no space left") || len(log.Set()) != 0 {
		t.Errorf("%v on a full disk: %v", first, log.Set())
	}

	// There may be room again, after a part of a line.
	if log.file, err = os.CreateTemp(t.TempDir(), "log"); err != nil {
		t.Fatal(err)
	}
	defer log.file.Close()

	if again := log.Add(r, false); again == nil || len(log.Set()) != 0 {
		t.Errorf("%v after that: %v", again, log.Set())
	}
}
