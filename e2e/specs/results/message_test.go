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

	t.Setenv("HOME", "/home/somebody")
	for message, want := range map[string]string{
		"error running " + dir + "/bin/kubectl get pods": "error running bin/kubectl get pods",
		"open /home/somebody/.ssh/id_rsa: no such file":  "open ~/.ssh/id_rsa: no such file",
	} {
		if got := lineOf(suite.Result{Message: message}, false).Message; got != want {
			t.Errorf("message %q, want %q", got, want)
		}
	}
}
