package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/e2e/specs/results"
	"github.com/trivet-node/trivet/internal/program"
)

// call runs the command in a directory of its own, with a suite that has the conformance set.
func call(t *testing.T, args ...string) (string, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	version, names := specs.Conformance()
	script := "#!/bin/sh\ncase $1 in --version) echo " + version + " ;; --list-tests) sed 's/^/    " +
		"a.go:1: /' names ;; esac\n"
	write(t, ".trivet/bin/e2e.test", script)
	write(t, "names", strings.Join(names, "\n")+"\n[sig-node] A\n")

	var out strings.Builder
	err := do(t.Context(), &program.Env{
		Name:   "trivet-specs",
		Args:   args,
		Stdout: &out,
		Stderr: &out,
		Log:    slog.New(slog.DiscardHandler),
	})

	return out.String(), err
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotRunIsSaid(t *testing.T) {
	for name, test := range map[string]struct {
		args  []string
		fault string
	}{
		"an unknown set":     {[]string{"--set=conformnace"}, `"conformnace" is neither a set`},
		"a shard of none":    {[]string{"--shard=6/5"}, `shard "6/5"`},
		"no suite":           {[]string{"--bin-dir=nowhere"}, "run make .trivet/bin/e2e.test"},
		"no cluster":         {[]string{"--set=conformance"}, "no cluster answers"},
		"an unknown spec":    {[]string{"--list=list"}, "neither a set"},
		"broken known times": {[]string{"--times=names"}, "results names: line 1"},
	} {
		_, err := call(t, test.args...)
		if err == nil || !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%s: error %v, want %q", name, err, test.fault)
		}
	}
}

func TestUnknownSetIsAUsageError(t *testing.T) {
	_, err := call(t, "--set=conformnace")
	if _, ok := errors.AsType[*program.UsageError](err); !ok {
		t.Errorf("%v, want a UsageError", err)
	}
}

func TestNamesThatAreNotThoseOfTheSuiteAreAnError(t *testing.T) {
	version, names := specs.Conformance()
	if err := compareNames(version, append([]string{"[sig-node] A"}, names...)); err != nil {
		t.Error(err)
	}
	if err := compareNames(version, names[1:]); err == nil {
		t.Error("a name that the suite does not have any more is not an error")
	}
	if err := compareNames("v1.38.0", names); err == nil {
		t.Error("another version of the suite is not an error")
	}
}

func TestResultsAreNamedAfterSetAndAgent(t *testing.T) {
	for seats, want := range map[string]string{
		"trivet-node trivet-cri trivet-cni crun": "trivet",
		"kubelet containerd upstream runc":       "kubelet",
	} {
		if got := agentOf(results.Subject{Seats: seats}); got != want {
			t.Errorf("%s: %q, want %q", seats, got, want)
		}
	}
}
