// Package skew tries trivet with several minor versions of Kubernetes: a cluster whose control plane,
// kube-proxy and kubectl are of one version, with trivet in all seats of the node, and once more with that
// version's kubelet in the agent's. What came out is kept as data, from which the table in docs/install.md is
// made.
package skew

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// Result is what one version with one agent came to.
type Result struct {
	Kubernetes string  `json:"kubernetes"` // v1.36.3
	Agent      string  `json:"agent"`      // trivet or kubelet
	Up         float64 `json:"up"`         // seconds until the node was Ready
	Demo       float64 `json:"demo"`       // seconds of the demo
	Failure    string  `json:"failure,omitempty"`
	Commit     string  `json:"commit"`
	Date       string  `json:"date"`
}

// isOf reports whether a result is of the same minor version and agent.
func (r Result) isOf(other Result) bool {
	a, b := parsed(r.Kubernetes), parsed(other.Kubernetes)
	return r.Agent == other.Agent && a.Major() == b.Major() && a.Minor() == b.Minor()
}

// parsed is a version that can be compared. What is none is before all others.
func parsed(text string) *version.Version {
	v, err := version.ParseSemantic(text)
	if err != nil {
		return version.MustParseSemantic("0.0.0")
	}
	return v
}

// compareVersions orders versions.
func compareVersions(a, b string) int {
	x, y := parsed(a), parsed(b)
	switch {
	case x.LessThan(y):
		return -1
	case y.LessThan(x):
		return 1
	}
	return 0
}

// Read reads results from a file; none if there is no such file.
func Read(path string) ([]Result, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()

	var all []Result
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, r)
	}
	return all, lines.Err()
}

// Add puts a result into a file, in the place of an earlier one of the same minor version and agent.
func Add(path string, r Result) error {
	all, err := Read(path)
	if err != nil {
		return err
	}

	all = append(slices.DeleteFunc(all, r.isOf), r)
	slices.SortFunc(all, func(a, b Result) int {
		return cmp.Or(compareVersions(a.Kubernetes, b.Kubernetes), strings.Compare(b.Agent, a.Agent))
	})

	var text strings.Builder
	for _, one := range all {
		line, err := json.Marshal(one)
		if err != nil {
			return err
		}
		text.Write(append(line, '\n'))
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}

// Table is Markdown: a row for each version.
func Table(all []Result) string {
	if len(all) == 0 {
		return "No result is kept yet.\n"
	}

	byVersion := map[string]map[string]Result{}
	var versions []string
	for _, r := range all {
		if byVersion[r.Kubernetes] == nil {
			byVersion[r.Kubernetes] = map[string]Result{}
			versions = append(versions, r.Kubernetes)
		}
		byVersion[r.Kubernetes][r.Agent] = r
	}
	slices.SortFunc(versions, compareVersions)

	var out strings.Builder
	out.WriteString("| control plane | trivet-node, trivet-cri, trivet-cni, trivet-csi | " +
		"kubelet of that version, trivet-cri, trivet-cni, trivet-csi | tried |\n| --- | --- | --- | --- |\n")
	for _, v := range versions {
		ours, theirs := byVersion[v]["trivet"], byVersion[v]["kubelet"]
		fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", v, cell(ours), cell(theirs), max(ours.Date, theirs.Date))
	}
	return out.String()
}

// cell is what a table says of a result.
func cell(r Result) string {
	switch {
	case r.Kubernetes == "":
		return "not tried"
	case r.Failure != "":
		return "failed: " + strings.ReplaceAll(r.Failure, "|", "\\|")
	}
	return fmt.Sprintf("works: up in %.0f s, demo in %.0f s", r.Up, r.Demo)
}
