package config

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/node/kubeletconfig"
)

// lines reads a list that was made from kubelet 1.37.2: its flags, as kubelet --help shows them, with their
// types, and its fields.
func lines(t *testing.T, name string) []string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func TestEveryFlagOfKubeletHasARow(t *testing.T) {
	for _, line := range lines(t, "testdata/kubelet-1.37.2-flags.txt") {
		name, kind, _ := strings.Cut(line, " ")
		row := findFlag(name)
		if row.name == "" {
			t.Errorf("--%s has no row", name)
			continue
		}

		if effect, note := row.result(); effect != Served && note == "" {
			t.Errorf("--%s: no reason why it is %s", name, effect)
		}
		if effect, _ := row.result(); effect == Served && row.help == "" && !frame[name] {
			t.Errorf("--%s is served and has no help", name)
		}
		if alone := kind == "bool"; alone != row.boolean() && !frame[name] {
			t.Errorf("--%s may stand alone: %v, in kubelet %v", name, row.boolean(), alone)
		}
	}
}

func TestEveryFlagThatSetsAFieldFindsIt(t *testing.T) {
	for _, row := range flagRows {
		if row.field == "" {
			continue
		}
		if _, err := (&kubeletconfig.Configuration{}).Field(row.field); err != nil {
			t.Errorf("--%s: %v", row.name, err)
		}
	}
}

func TestEveryFieldHasARow(t *testing.T) {
	var tops []string
	for _, path := range lines(t, "../kubeletconfig/testdata/kubelet-1.37.2-fields.txt") {
		top, _, _ := strings.Cut(path, ".")
		if top = strings.TrimSuffix(top, "[]"); top != "kind" && top != "apiVersion" &&
			!slices.Contains(tops, top) {
			tops = append(tops, top)
		}
	}

	var rows []string
	for _, f := range fields {
		rows = append(rows, f.name)
		if f.effect != Served && f.note == "" {
			t.Errorf("%s: no reason why it is %s", f.name, f.effect)
		}
	}

	slices.Sort(tops)
	slices.Sort(rows)
	if diff := cmp.Diff(tops, rows); diff != "" {
		t.Error(diff)
	}
}
