package seats

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/internal/durable"
)

// Result is what came out of one cell.
type Result struct {
	Cell    string `json:"cell"` // its Name
	Commit  string `json:"commit"`
	Date    string `json:"date"`
	Machine string `json:"machine"`

	// Load is the load average of the machine (1 minute) when pods were measured: another one's work is in
	// the times.
	Load float64 `json:"load"`

	// Trouble is empty when all of the cell was tried and nothing was left, else what went wrong: its first
	// words, up to a colon, name the step.
	Trouble string `json:"trouble,omitempty"`

	// Demo is empty when the demo went through, else what went wrong.
	Demo string `json:"demo,omitempty"`

	// Note is why something failed, as a person has found out; it goes when the cell runs again.
	Note string `json:"note,omitempty"`

	// Passed, Failed and Skipped are the tests of package scenario.
	Passed  []string `json:"passed"`
	Failed  []string `json:"failed,omitempty"`
	Skipped []string `json:"skipped,omitempty"`

	// Ready and Gone are how long single pods took, in milliseconds.
	Ready Figures `json:"ready"`
	Gone  Figures `json:"gone"`
}

// Figures sum up measurements in milliseconds.
type Figures struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Count  int     `json:"count"`
}

// sumUp is the figures of some measurements; zero for none.
func sumUp(all []time.Duration) Figures {
	if len(all) == 0 {
		return Figures{}
	}

	sorted := slices.Sorted(slices.Values(all))
	return Figures{
		Median: milliseconds(sorted[len(sorted)/2]),
		Min:    milliseconds(sorted[0]),
		Max:    milliseconds(sorted[len(sorted)-1]),
		Count:  len(sorted),
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Round(100*time.Microsecond)) / 1e6 }

// err is what went wrong in the cell.
func (r Result) err() error {
	var errs []error
	if r.Trouble != "" {
		errs = append(errs, errors.New(r.Trouble))
	}
	if r.Demo != "" {
		errs = append(errs, errors.New(r.Demo))
	}
	for _, name := range r.Failed {
		errs = append(errs, fmt.Errorf("%s failed", name))
	}
	if len(r.Passed) == 0 {
		errs = append(errs, errors.New("no scenario passed"))
	}
	return errors.Join(errs...)
}

// Read reads results, one JSON object a line. A file that is not there has none.
func Read(file string) ([]Result, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}

	var all []Result
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		var r Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, r)
	}

	return all, lines.Err()
}

// Keep puts a result into a file of results, in the place of an earlier one of its cell, and in the order of
// the matrix.
func Keep(file string, result Result) error {
	all, err := Read(file)
	if err != nil {
		return err
	}

	byCell := map[string]Result{result.Cell: result}
	for _, r := range all {
		if r.Cell != result.Cell {
			byCell[r.Cell] = r
		}
	}

	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	for _, cell := range Cells() {
		r, there := byCell[Name(cell)]
		if !there {
			continue
		}
		if err := encoder.Encode(r); err != nil {
			return err
		}
	}

	return durable.WriteVolatile(file, out.Bytes(), 0o644)
}

// of is the result of a cell.
func of(all []Result, cell seat.Seats) (Result, bool) {
	i := slices.IndexFunc(all, func(r Result) bool { return r.Cell == Name(cell) })
	if i < 0 {
		return Result{}, false
	}
	return all[i], true
}
