package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/trivet-node/trivet/e2e/specs/results"
)

// Files of the directory that a virtual machine hands back, beside PACKAGE.log, the output of the tests of a
// package with its slashes as dots.
const (
	subjectFile = "subject"     // a line KEY=VALUE for each of commit, kernel, systemd, runtime, machine
	stepsFile   = "steps"       // a line for each command that ran: its exit code, seconds and name
	specsFile   = "specs.jsonl" // of trivet-specs
	endFile     = "ended"       // there is one if the tests came to their end
	logSuffix   = ".log"
)

// Collect makes a run of what a virtual machine has handed back. The Subject needs its Debian, Shard and
// Date.
func Collect(dir string, s Subject) (Run, error) {
	r := Run{Subject: s}
	if err := r.readSubject(filepath.Join(dir, subjectFile)); err != nil {
		return Run{}, err
	}

	logs, err := filepath.Glob(filepath.Join(dir, "*"+logSuffix))
	if err != nil {
		return Run{}, err
	}

	for _, file := range logs {
		data, err := os.ReadFile(file)
		if err != nil {
			return Run{}, err
		}

		name := strings.TrimSuffix(filepath.Base(file), logSuffix)
		r.Results = append(r.Results, tests(strings.ReplaceAll(name, ".", "/"), data)...)
	}

	for _, read := range []struct {
		file string
		read func(path string) error
	}{{specsFile, r.readSpecs}, {stepsFile, r.readSteps}} {
		err := read.read(filepath.Join(dir, read.file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Run{}, err
		}
	}

	if len(r.Results) == 0 {
		return Run{}, fmt.Errorf("%s: the virtual machine has handed back no result", dir)
	}

	if _, err := os.Stat(filepath.Join(dir, endFile)); err != nil {
		r.Results = append(r.Results, Result{
			Program: "steps",
			Test:    "the end of the tests",
			Outcome: Failed,
			Message: "the virtual machine ended before them",
		})
	}

	return r, nil
}

func (r *Run) readSubject(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}

	fields := map[string]*string{
		"commit":  &r.Commit,
		"kernel":  &r.Kernel,
		"systemd": &r.Systemd,
		"runtime": &r.Runtime,
		"machine": &r.Machine,
	}

	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if field := fields[key]; field != nil {
			*field = value
		}
	}

	return nil
}

// readSpecs adds the results of specs of e2e.test.
func (r *Run) readSpecs(file string) error {
	_, set, err := results.Read(file)
	if err != nil {
		return err
	}

	outcomes := map[results.State]Outcome{
		results.Passed:  Passed,
		results.Flaky:   Failed,
		results.Failed:  Failed,
		results.Skipped: Skipped,
	}

	for _, spec := range set.Sorted() {
		r.Results = append(r.Results, Result{
			Program: "e2e.test",
			Test:    spec.Spec,
			Outcome: outcomes[spec.State()],
			Seconds: spec.Took().Seconds(),
			Message: spec.Message(),
		})
	}

	return nil
}

// readSteps adds the commands that are no tests, and those that ended badly without any test that failed.
func (r *Run) readSteps(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}

	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
		if len(fields) != 3 {
			return fmt.Errorf("%s: %q is not a step", file, line)
		}

		seconds, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}

		step := Result{
			Program: "steps",
			Test:    fields[2],
			Outcome: Passed,
			Seconds: seconds,
		}
		if fields[0] != "0" {
			step.Outcome = Failed
			step.Message = "it ended with code " + fields[0]
		}

		r.Results = append(r.Results, step)
	}

	return nil
}
