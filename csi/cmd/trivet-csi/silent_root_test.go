package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is on the node is shown when the Kubernetes API does not answer, and the exit code says that.
func TestWhatIsThereIsShownWithoutAnAnswerOfTheAPI(t *testing.T) {
	p := newProcess(t)
	l := p.life("v")
	p.do(l.create, l.stage, l.publish, l.fill, l.snapshot)
	config := filepath.Join(p.dir, "kubeconfig")
	err := os.WriteFile(config, []byte(`{clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}],
contexts: [{name: c, context: {cluster: c}}], current-context: c}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}

	for verb, want := range map[string]string{
		"volumes":   "\n" + l.id,
		"snapshots": "\n" + l.snapshotID,
		"doctor":    "\nok     records: 1 volumes and 1 snapshots are as their records say\n",
	} {
		out, err := output(p.verb(verb, "--kubeconfig="+config))
		exit, failed := errors.AsType[*exec.ExitError](err)
		if !failed || exit.ExitCode() != 1 || !strings.Contains(out, want) {
			t.Errorf("%s: %v, want %q in\n%s", verb, err, want, out)
		}
		if said := out + fmt.Sprint(err); strings.Count(said, "could not be asked") != 1 {
			t.Errorf("%s says that the API does not answer other than once:\n%s", verb, said)
		}
	}

	out, err := output(p.verb("delete", "--kubeconfig="+config, l.snapshotID))
	if err == nil || !strings.Contains(err.Error(), "list PersistentVolumes") {
		t.Errorf("what the API may have an object for was deleted: %s, %v", out, err)
	}
	p.do(l.unpublish, l.unstage, l.deleteSnapshot, l.delete)
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}
