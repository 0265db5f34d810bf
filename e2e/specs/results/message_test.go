package results

import (
	"os"
	"testing"

	"github.com/trivet-node/trivet/e2e/specs/suite"
)

func TestMessagesHaveNoPathsOfTheMachine(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}

	got := lineOf(suite.Result{Message: "error running " + dir + "/bin/kubectl get pods"}, false).Message
	if want := "error running bin/kubectl get pods"; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}
