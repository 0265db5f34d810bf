package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// output is that of a test program: the last test is cut off.
const output = `=== RUN   TestGood
=== RUN   TestGood/sub
    good_test.go:7: all is well
--- PASS: TestGood (0.25s)
    --- PASS: TestGood/sub (0.20s)
=== RUN   TestBad
    bad_test.go:9: it is broken
    bad_test.go:11: very
--- FAIL: TestBad (1.00s)
=== RUN   TestNotHere
    not_test.go:3: it is another machine
--- SKIP: TestNotHere (0.00s)
=== RUN   TestCutOff
panic: test timed out after 1s
`

// benchmarks are of a test program whose last benchmark is cut off after its first case.
const benchmarks = `goos: linux
BenchmarkMake
BenchmarkMake/ext4
BenchmarkMake/ext4-2         	     100	   1250000 ns/op	     64 B/op
BenchmarkMake/btrfs
    make_test.go:6: no btrfs
--- SKIP: BenchmarkMake/btrfs
BenchmarkMake/xfs
--- FAIL: BenchmarkMake/xfs-2
    make_test.go:3: no disk
BenchmarkElsewhere
    make_test.go:9: it is another machine
--- SKIP: BenchmarkElsewhere
BenchmarkAlone
BenchmarkAlone-2             	      10	        59.10 ns/op
BenchmarkCutOff
BenchmarkCutOff/one
BenchmarkCutOff/one-2        	      10	        50.00 ns/op
BenchmarkCutOff/two
panic: x
`

// handedBack makes the directory of a virtual machine.
func handedBack(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const subject = "commit=abc\nkernel=Linux 6.1\nsystemd=systemd 252\nruntime=crun\nmachine=2\nother=x\n"

func collected(t *testing.T) Run {
	t.Helper()
	dir := handedBack(t, map[string]string{
		"subject":            subject,
		"node.podcgroup.log": output,
		"internal.bench.log": "BenchmarkMake\nBenchmarkMake/ext4-2 9 1250000 ns/op\nPASS\n",
		"e2e.scenario.log":   "=== RUN   TestStalls\n--- PASS: TestStalls (3.00s)\n",
		"steps":              "0 12 cluster up\n1 3 the demo\n",
		"ended":              "== kernel ended with code 1\n",
		"specs.jsonl": `{"subject": {"suite": "v1.37.2", "commit": "abc", "seats": "s", "nodes": 1}}` + "\n" +
			`{"spec": "[sig-node] A", "outcome": "passed", "seconds": 2}` + "\n",
	})

	run, err := Collect(dir, Subject{Debian: "12", Shard: "kernel", Date: "2026-11-29"})
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func TestResultsAreThoseOfTestsSpecsAndSteps(t *testing.T) {
	run := collected(t)
	if run.Commit != "abc" || run.Kernel != "Linux 6.1" || run.Systemd != "systemd 252" ||
		run.Debian != "12" {
		t.Errorf("subject %+v", run.Subject)
	}

	want := []Result{
		{Program: "e2e/scenario", Test: "TestStalls", Outcome: Passed, Seconds: 3},
		{Program: "internal/bench", Test: "BenchmarkMake/ext4", Outcome: Passed, Operation: 0.00125},
		{Program: "node/podcgroup", Test: "TestGood", Outcome: Passed, Seconds: 0.25},
		{
			Program: "node/podcgroup",
			Test:    "TestBad",
			Outcome: Failed,
			Seconds: 1,
			Message: "bad_test.go:9: it is broken",
		},
		{
			Program: "node/podcgroup",
			Test:    "TestNotHere",
			Outcome: Skipped,
			Message: "not_test.go:3: it is another machine",
		},
		{Program: "node/podcgroup", Test: "TestCutOff", Outcome: Failed, Message: "it did not end"},
		{Program: "e2e.test", Test: "[sig-node] A", Outcome: Passed, Seconds: 2},
		{Program: "steps", Test: "cluster up", Outcome: Passed, Seconds: 12},
		{
			Program: "steps",
			Test:    "the demo",
			Outcome: Failed,
			Seconds: 3,
			Message: "it ended with code 1",
		},
	}
	if diff := cmp.Diff(want, run.Results); diff != "" {
		t.Error(diff)
	}
	if n := len(run.Failures()); n != 3 {
		t.Errorf("%d failures", n)
	}
}

func TestBenchmarksHaveAResultForEachCase(t *testing.T) {
	want := []Result{
		{Test: "BenchmarkMake/ext4", Outcome: Passed, Operation: 0.00125},
		{Test: "BenchmarkMake/btrfs", Outcome: Skipped, Message: "make_test.go:6: no btrfs"},
		{Test: "BenchmarkMake/xfs", Outcome: Failed, Message: "make_test.go:3: no disk"},
		{
			Test:    "BenchmarkElsewhere",
			Outcome: Skipped,
			Message: "make_test.go:9: it is another machine",
		},
		{Test: "BenchmarkAlone", Outcome: Passed, Operation: 59.1e-9},
		{Test: "BenchmarkCutOff/one", Outcome: Passed, Operation: 50e-9},
		{Test: "BenchmarkCutOff", Outcome: Failed, Message: "it did not end"},
	}
	for i := range want {
		want[i].Program = "p"
	}

	near := cmpopts.EquateApprox(1e-9, 0)
	if diff := cmp.Diff(want, tests("p", []byte(benchmarks)), near); diff != "" {
		t.Error(diff)
	}

	ended := strings.Replace(benchmarks, "panic: x", "PASS", 1)
	if diff := cmp.Diff(want[:len(want)-1], tests("p", []byte(ended)), near); diff != "" {
		t.Error(diff)
	}
}

func TestAMachineThatHandsNothingBackIsAnError(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"nothing":      {},
		"no result":    {"subject": subject},
		"a torn step":  {"subject": subject, "steps": "0 12\n"},
		"a wrong time": {"subject": subject, "steps": "0 x up\n"},
		"torn specs":   {"subject": subject, "specs.jsonl": "{"},
	} {
		if _, err := Collect(handedBack(t, files), Subject{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAMachineThatEndedBeforeItsTestsHasFailed(t *testing.T) {
	files := map[string]string{"subject": subject, "steps": "0 12 cluster up\n"}
	run, err := Collect(handedBack(t, files), Subject{})
	if err != nil {
		t.Fatal(err)
	}

	failures := run.Failures()
	if len(failures) != 1 || !strings.Contains(failures[0].Message, "ended before") {
		t.Errorf("failures: %+v", failures)
	}
}

func TestRunsAreReadAsTheyAreWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	run := collected(t)
	for range 2 {
		if err := Write(dir, run); err != nil {
			t.Fatal(err)
		}
	}

	all, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Run{run}, all); diff != "" {
		t.Error(diff)
	}

	for _, text := range []string{"", "{}\n", `{"debian": "12", "shard": "a"}` + "\n{}\n", "{\n"} {
		if _, err := decode([]byte(text)); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}

func TestTheDocumentHasATableForEachQuestion(t *testing.T) {
	other := collected(t)
	other.Debian, other.Kernel = "13", "Linux 6.12"
	other.Results = other.Results[:1]
	document := "before\n" + beginMark + "old\n" + endMark + "after\n"
	got, err := Rewrite(document, []Run{collected(t), other})
	if err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{
		"before\n" + beginMark,
		endMark + "after\n",
		"| 12 | kernel | Linux 6.1 | systemd 252 | crun | 2 | abc | 2026-11-29 |",
		"| kernel | node/podcgroup | 1 passed, 2 failed, 1 skipped, 1 s | not run |",
		"| internal/bench | Make/ext4 | 1.25 ms | not run |",
		"| TestStalls | passed, 3 s | passed, 3 s |",
		"| 12 | node/podcgroup | TestBad | failed | bad_test.go:9: it is broken |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("not in the document: %s", want)
		}
	}
	if strings.Contains(got, "old") {
		t.Error("the old tables are there still")
	}

	again, err := Rewrite(got, []Run{collected(t), other})
	if err != nil || again != got {
		t.Errorf("a second time it is another document, %v", err)
	}
	if _, err := Rewrite("no marks\n", nil); err == nil {
		t.Error("a document without marks is rewritten")
	}
}

// The tables of the document are those of the results that are committed.
func TestTheDocumentShowsWhatIsKept(t *testing.T) {
	runs, err := Load("../../docs/data/vm")
	if err != nil {
		t.Fatal(err)
	}

	document, err := os.ReadFile("../../docs/cgroup-v2.md")
	if err != nil {
		t.Fatal(err)
	}

	want, err := Rewrite(string(document), runs)
	if err != nil || want != string(document) {
		t.Errorf("make vm-page writes another document, %v", err)
	}
}

func FuzzTests(f *testing.F) {
	f.Add([]byte(output))
	f.Add([]byte(benchmarks))
	f.Add([]byte("--- PASS: TestX (s)\n--- FAIL:  (1.0s)\n=== RUN   \n    x_test.go:"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, r := range tests("p", text) {
			if r.Program != "p" || r.Outcome == "" || len(r.Message) > maxMessage {
				t.Errorf("%+v", r)
			}
		}
	})
}
