package main

import (
	"errors"
	"os"
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

	if err := errors.Join(os.RemoveAll(data), os.Rename(data+"-away", data)); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.ready()
	p.do(l.stage, l.publish, l.write, l.unpublish, l.unstage, l.delete)
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}
