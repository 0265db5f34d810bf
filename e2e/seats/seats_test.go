package seats

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/cluster/seat"
)

func TestTheMatrixHasEachProgramBesideEach(t *testing.T) {
	cells := map[string]bool{}
	for _, c := range Cells() {
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
		cells[Name(c)] = true
	}

	if len(cells) != 20 || len(Cells()) != 20 {
		t.Errorf("%d cells of %d names, want 16 and 4 variants", len(Cells()), len(cells))
	}
	for _, want := range []string{
		"trivet-node trivet-cri trivet-cni trivet-csi crun",
		"kubelet containerd upstream local-path runc",
		"trivet-node trivet-cri trivet-cni trivet-csi runc systemd",
	} {
		if !cells[want] {
			t.Errorf("there is no %s", want)
		}
	}
}

func TestCellsAreChosenByTheirPrograms(t *testing.T) {
	for wanted, count := range map[string]int{
		"all":                         20,
		"rotating":                    1,
		"kubelet":                     9,
		"kubelet,upstream,local-path": 2,
		"systemd":                     3,
	} {
		cells, err := Choose(wanted, "c0ffee")
		if err != nil || len(cells) != count {
			t.Errorf("%s: %d cells, %v; want %d", wanted, len(cells), err, count)
		}
	}

	for _, wanted := range []string{"", "docker", "kubelet,trivet-node"} {
		if cells, err := Choose(wanted, "c0ffee"); err == nil {
			t.Errorf("%q: %d cells", wanted, len(cells))
		}
	}
}

func TestCommitsTryAllCellsButTheUsualOne(t *testing.T) {
	tried := map[string]bool{}
	for i := range 300 {
		commit := fmt.Sprint("commit ", i)
		cell := Rotating(commit)
		if again := Rotating(commit); again != cell {
			t.Fatalf("%s and %s for the same commit", Name(cell), Name(again))
		}
		tried[Name(cell)] = true
	}

	if len(tried) != len(Cells())-1 || tried[Name(seat.Ours)] {
		t.Errorf("300 commits try %d cells: %v", len(tried), tried)
	}
}

func TestFlagsBringUpTheCell(t *testing.T) {
	got := strings.Join(flags(Cells()[len(Cells())-1]), " ")
	const want = "--agent=kubelet --cri=containerd --cni=trivet --csi=trivet --oci=runc --systemd-nodes=1"
	if got != want {
		t.Errorf("flags %s, want %s", got, want)
	}
}

func TestVerdictsAreReadInWhateverPiecesTheyCome(t *testing.T) {
	var out strings.Builder
	v := &verdicts{out: &out}
	const printed = "=== RUN   TestA\n    a_test.go:1: text\n--- PASS: TestA (1.23s)\n" +
		"    --- FAIL: TestB/sub (0.00s)\n--- FAIL: TestB (0.10s)\n--- SKIP: TestC (0.00s)\nFAIL\n"
	for piece := range slices.Chunk([]byte(printed), 7) {
		if n, err := v.Write(piece); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}

	got := fmt.Sprint(v.passed, v.failed, v.skipped)
	if got != "[TestA] [TestB] [TestC]" || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("%s; shown: %s", got, out.String())
	}
}

func TestResultsReplaceThoseOfTheirCell(t *testing.T) {
	file := filepath.Join(t.TempDir(), "seats.jsonl")
	last := Name(Cells()[15])
	for _, r := range []Result{
		{Cell: last, Demo: "step 3"},
		{Cell: Name(seat.Ours), Passed: []string{"TestA"}},
		{Cell: last, Passed: []string{"TestA", "TestB"}},
	} {
		if err := Keep(file, r); err != nil {
			t.Fatal(err)
		}
	}

	all, err := Read(file)
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	if all[0].Cell != Name(seat.Ours) || all[1].Demo != "" || len(all[1].Passed) != 2 {
		t.Errorf("%+v", all)
	}
}

func TestACellFailsByItsDemoOrAScenario(t *testing.T) {
	for _, c := range []struct {
		result Result
		want   string
	}{
		{Result{Passed: []string{"TestA"}}, ""},
		{Result{Cell: "c", Passed: []string{"TestA"}, Failed: []string{"TestB"}}, "c: TestB failed"},
		{Result{Cell: "c", Passed: []string{"TestA"}, Demo: "step 3"}, "c: step 3"},
		{Result{Cell: "c", Passed: []string{"TestA"}, Trouble: "step 4"}, "c: step 4"},
		{Result{Cell: "c"}, "c: no scenario passed"},
	} {
		got := ""
		if err := c.result.Err(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: %q, want %q", c.result, got, c.want)
		}
	}
}

// script writes a shell script in the place of a program of the checkout.
func script(t *testing.T, root, name, text string) {
	t.Helper()
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestTheRowOfACellSaysWhichStepFailed(t *testing.T) {
	r := Run{Root: t.TempDir(), Dir: t.TempDir(), Out: t.Output()}
	for _, c := range []struct{ fails, trouble, demo string }{
		{"up", "trivet-cluster up: exit status 1: up is broken", "it was not run"},
		{"no step", "pods are not measured: ", "it was not run"},
	} {
		script(t, r.Root, "trivet-cluster", "echo $1 >> "+r.Dir+"/steps\n"+
			`[ "$1" != "`+c.fails+`" ] || { echo $1 is broken >&2; exit 1; }`)
		got, err := r.Cell(t.Context(), seat.Ours)
		if err != nil || got.Cell != Name(seat.Ours) || got.Demo != c.demo {
			t.Errorf("%s fails: %+v, %v", c.fails, got, err)
		}
		if !strings.HasPrefix(got.Trouble, c.trouble) {
			t.Errorf("%s fails: %q, want %q", c.fails, got.Trouble, c.trouble)
		}
	}

	steps, err := os.ReadFile(filepath.Join(r.Dir, "steps"))
	if got := strings.Fields(string(steps)); err != nil || strings.Join(got, " ") !=
		"down up down leaks down up down leaks" {
		t.Errorf("steps %q, %v", got, err)
	}
}

// What the demo needs is a part of it.
func TestADemoThatCannotBeShownHasFailed(t *testing.T) {
	r := Run{Root: t.TempDir(), Dir: t.TempDir(), Out: t.Output()}
	script(t, r.Root, "trivet-cluster", `[ "$1" != install ] || exit 1`)
	r.Metrics = true
	if err := r.demo(t.Context()); err == nil || !strings.Contains(err.Error(), "trivet-cluster install") {
		t.Errorf("%v", err)
	}

	r.Metrics = false
	if err := r.demo(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFiguresAreMedianAndEnds(t *testing.T) {
	f := sumUp([]time.Duration{90 * time.Millisecond, 30 * time.Millisecond, 50 * time.Millisecond})
	if f.String() != "50 ms (30 to 90)" || f.Count != 3 {
		t.Errorf("%s of %d", f, f.Count)
	}
}

func TestPageShowsWhatFailedAndWhatWasNotRun(t *testing.T) {
	text := Page([]Result{{
		Cell:    "kubelet containerd upstream local-path runc",
		Demo:    "step 3",
		Trouble: "trivet-cluster leaks: exit status 1",
		Passed:  []string{"TestA"},
		Failed:  []string{"TestB"},
		Note:    "too busy",
	}})
	for _, want := range []string{
		"| kubelet | containerd | upstream | local-path | runc | fails | 1 of 2 |",
		"| kubelet containerd upstream local-path runc | TestB, the demo, trivet-cluster leaks | too busy |",
		"| trivet-node | trivet-cri | trivet-cni | trivet-csi | crun | not run |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the page:\n%s", want, text)
		}
	}
}

func TestPageIsTheOneOfTheData(t *testing.T) {
	all, err := Read("../../docs/data/seats.jsonl")
	if err != nil {
		t.Fatal(err)
	}

	got, err := os.ReadFile("../../docs/seats.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != Page(all) {
		t.Error("docs/seats.md is not what the data says: make seats-page")
	}
}

func TestScenariosOfACellAreThere(t *testing.T) {
	files, err := filepath.Glob("../scenario/*_test.go")
	if err != nil {
		t.Fatal(err)
	}

	var source strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(text)
	}

	for _, name := range Scenarios {
		if !strings.Contains(source.String(), "func "+name+"(") {
			t.Errorf("package scenario has no %s", name)
		}
	}
}
