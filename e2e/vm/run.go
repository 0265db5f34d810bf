// Package vm keeps and shows the results of tests that ran in virtual machines with Debian's kernels
// (vm.sh). What a virtual machine hands back is a directory; what is kept of it is a file of JSON lines
// for each version of Debian and shard: the first says what ran where, then there is one for each test.
package vm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/internal/durable"
)

// Subject is what was tested, and where.
type Subject struct {
	// Debian is the version whose kernel it was, and Shard the part of the tests.
	Debian string `json:"debian"`
	Shard  string `json:"shard"`

	Kernel  string `json:"kernel"`
	Systemd string `json:"systemd"`
	// Runtime is the OCI runtime, Machine what the virtual machine ran on.
	Runtime string `json:"runtime"`
	Machine string `json:"machine"`

	Commit string `json:"commit"`
	Date   string `json:"date"`
}

// Outcome of a test.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
)

// Result is that of a test, a spec or a step.
type Result struct {
	// Program is what it is a test of: a package, e2e.test, or "steps".
	Program string  `json:"program"`
	Test    string  `json:"test"`
	Outcome Outcome `json:"outcome"`
	Seconds float64 `json:"seconds,omitempty"`
	// Operation is how many seconds one took, of a benchmark.
	Operation float64 `json:"operation,omitempty"`

	// Message is the reason of a failure or a skip.
	Message string `json:"message,omitempty"`
}

// Run is one shard on one kernel.
type Run struct {
	Subject
	Results []Result
}

// count returns how many results have an outcome.
func (r Run) count(program string, o Outcome) int {
	n := 0
	for _, one := range r.Results {
		if one.Program == program && one.Outcome == o {
			n++
		}
	}
	return n
}

// Failures are the results that failed.
func (r Run) Failures() []Result {
	return slices.DeleteFunc(slices.Clone(r.Results), func(one Result) bool { return one.Outcome != Failed })
}

// Write keeps a run in a directory, in the place of an earlier one of the same Debian and shard.
func Write(dir string, r Run) error {
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(r.Subject); err != nil {
		return err
	}

	for _, one := range r.Results {
		if err := encoder.Encode(one); err != nil {
			return err
		}
	}

	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, "debian"+r.Debian+"-"+r.Shard+".jsonl"), data.Bytes(), 0o644)
}

// Load reads all runs that are kept in a directory, in the order of their files.
func Load(dir string) ([]Run, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, err
	}

	var all []Run
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}

		run, err := decode(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}

		all = append(all, run)
	}

	return all, nil
}

func decode(data []byte) (Run, error) {
	r := Run{}
	for n, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		if n == 0 {
			if err := decoder.Decode(&r.Subject); err != nil {
				return Run{}, fmt.Errorf("line 1: %w", err)
			}

			continue
		}

		var one Result
		err := decoder.Decode(&one)
		if err == nil && (one.Test == "" || one.Outcome == "") {
			err = errors.New("not a result")
		}
		if err != nil {
			return Run{}, fmt.Errorf("line %d: %w", n+1, err)
		}

		r.Results = append(r.Results, one)
	}

	if r.Debian == "" || r.Shard == "" {
		return Run{}, errors.New("line 1: it does not say what was tested")
	}

	return r, nil
}
