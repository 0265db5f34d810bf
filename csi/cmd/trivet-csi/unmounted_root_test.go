package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/trivet-node/trivet/internal/program"
)

// A data directory whose disk is not mounted is empty. No driver serves it, makes a pool in it, or takes
// volumes for deleted that it does not find there; a person is told what is missing.
func TestEmptyDirectoryInPlaceOfTheVolumesIsRefused(t *testing.T) {
	p := newProcess(t)
	l := p.life("v")
	p.do(l.create)
	p.end(syscall.SIGTERM)

	data := p.dir + "/data"
	if err := errors.Join(os.Rename(data, data+"-away"), os.Mkdir(data, 0o755)); err != nil {
		t.Fatal(err)
	}
	p.start()
	_ = p.cmd.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != program.ExitCantRun {
		t.Errorf("exit code %d", code)
	}
	left, err := os.ReadDir(data)
	if err != nil || len(left) != 1 || left[0].Name() != "lock" {
		t.Errorf("left in the empty directory: %v, %v", left, err)
	}
	want := "wrong  disk of " + data + ": the data directory " + data + " is new or empty"
	if out, code := p.doctor(); code != 1 || !strings.Contains(out, want) {
		t.Errorf("%d, want %s in\n%s", code, want, out)
	}

	p.checkNotListed("new or empty")

	if err := errors.Join(os.RemoveAll(data), os.Rename(data+"-away", data)); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.ready()
	p.do(l.stage, l.publish, l.write, l.unpublish, l.unstage, l.delete)
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}

// checkNotListed fails the test if a list says that there are no volumes where nobody knows.
func (p *process) checkNotListed(want string) {
	p.t.Helper()
	for _, verb := range []string{"volumes", "snapshots", "pool"} {
		out, err := output(p.verb(verb))
		exit, failed := errors.AsType[*exec.ExitError](err)
		if !failed || exit.ExitCode() != 1 || !strings.Contains(err.Error(), want) || out != "" {
			p.t.Errorf("%s: %v, want %q; it prints %q", verb, err, want, out)
		}
	}
}

func TestDirectoryThatNoDriverHasServedHasNoLists(t *testing.T) {
	p := newProcess(t)
	p.end(syscall.SIGTERM)
	data, witness := p.dir+"/data", placeOf(p.where()).Witness
	err := errors.Join(os.Rename(data, data+"-away"), os.Mkdir(data, 0o755), os.Remove(witness))
	if err != nil {
		t.Fatal(err)
	}
	p.checkNotListed("no driver has ever served the data directory " + data)

	if err := errors.Join(os.Remove(data), os.Rename(data+"-away", data)); err != nil {
		t.Fatal(err)
	}
	p.nothingLeft()
}

// What is in another directory is shown, and that it is not the node's.
func TestAnotherDirectoryIsShownAsThat(t *testing.T) {
	p := newProcess(t)
	l := p.life("v")
	p.do(l.create)
	witness := placeOf(p.where()).Witness
	known, err := os.ReadFile(witness)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(witness, []byte("00000000 /elsewhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	out, err := output(p.verb("volumes"))
	if err == nil || !strings.Contains(err.Error(), "is another one") || !strings.Contains(out, l.id) {
		t.Errorf("%v in\n%s", err, out)
	}

	if err := os.WriteFile(witness, known, 0o600); err != nil {
		t.Fatal(err)
	}
	p.do(l.delete)
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}
