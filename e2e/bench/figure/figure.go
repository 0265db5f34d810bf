// Package figure keeps what benchmarks have measured as data, one JSON object a line, so that tables and
// pictures can be made of it without running anything. The figures that docs/benchmarks.md shows are in
// e2e/bench/results.
package figure

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// Figure is the median of one thing that was measured of one side.
type Figure struct {
	Bench  string  `json:"bench"`  // pods, cni, csi, pull, archive, scrape, evict or resize
	What   string  `json:"what"`   // what was measured, the same for both sides
	Side   string  `json:"side"`   // Ours, or the name of what it is compared with
	Unit   string  `json:"unit"`   // ms, s, KiB, MiB, MiB/s, % or 1/s
	Median float64 `json:"median"` // of processor time and memory the mean, or the only value
	Min    float64 `json:"min,omitempty"`
	Max    float64 `json:"max,omitempty"`
	Count  int     `json:"count,omitempty"` // how many times it was measured
}

// FlagUsage explains the flag json of the benchmarks.
const FlagUsage = "write the figures to this file, one JSON object a line"

// Ours is the Side of trivet.
const Ours = "trivet"

// Of is the figure of durations, in milliseconds. There must be one at least.
func Of(bench, what, side string, took []time.Duration) Figure {
	sorted := slices.Sorted(slices.Values(took))
	return Figure{
		Bench:  bench,
		What:   what,
		Side:   side,
		Unit:   "ms",
		Median: milliseconds(sorted[len(sorted)/2]),
		Min:    milliseconds(sorted[0]),
		Max:    milliseconds(sorted[len(sorted)-1]),
		Count:  len(sorted),
	}
}

// milliseconds has two digits after the point, which is more than any of the measurements is worth.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond).Microseconds()) / 1000
}

// Writer collects figures for a file.
type Writer struct {
	path string
	all  []Figure
}

// NewWriter returns a Writer that writes path at Close, and nothing if that is empty.
func NewWriter(path string) *Writer { return &Writer{path: path} }

// Add adds figures.
func (w *Writer) Add(figures ...Figure) { w.all = append(w.all, figures...) }

// All are the figures so far.
func (w *Writer) All() []Figure { return w.all }

// Close writes the file.
func (w *Writer) Close() error {
	if w.path == "" {
		return nil
	}

	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	for _, f := range w.all {
		if err := encoder.Encode(f); err != nil {
			return err
		}
	}
	return os.WriteFile(w.path, buf.Bytes(), 0o644)
}

// Read reads the figures of a file in their order.
func Read(path string) ([]Figure, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}

	var figures []Figure
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		var f Figure
		decoder := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&f); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}

		figures = append(figures, f)
	}

	return figures, lines.Err()
}
