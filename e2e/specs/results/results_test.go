package results_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/e2e/specs/results"
	"github.com/trivet-node/trivet/e2e/specs/suite"
)

var subject = results.Subject{
	Suite:  "v1.37.2",
	Commit: "c1",
	Seats:  "trivet-node trivet-cri trivet-cni crun",
	Nodes:  2,
	Date:   "2026-11-29",
}

var (
	passed = suite.Result{Name: "[sig-a] A", Outcome: suite.Passed, Took: 1500 * time.Millisecond}
	failed = suite.Result{
		Name:    "[sig-a] B",
		Outcome: suite.Failed,
		Took:    time.Minute,
		Message: "1 < 2",
	}
	second = suite.Result{Name: "[sig-a] B", Outcome: suite.Passed, Took: 2 * time.Second}
	both   = results.Set{
		"[sig-a] A": {Spec: "[sig-a] A", First: passed},
		"[sig-a] B": {Spec: "[sig-a] B", First: failed, Second: &second},
	}
)

// grow opens the log at path, adds the results, and closes it.
func grow(
	t *testing.T,
	path string,
	subject results.Subject,
	fresh bool,
	first ...suite.Result,
) *results.Log {
	t.Helper()
	log, err := results.Open(path, subject, fresh)
	if err != nil {
		t.Fatal(err)
	}

	for _, r := range first {
		if err := log.Add(r, false); err != nil {
			t.Fatal(err)
		}
	}

	if err := log.Close(); err != nil {
		t.Fatal(err)
	}

	return log
}

func TestLogHasWhatWasAddedBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results")
	grow(t, path, subject, false, passed, failed)

	later := subject
	later.Date = "2026-11-30"
	log, err := results.Open(path, later, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Add(second, true); err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff(both, log.Set()); diff != "" || log.Old() != nil {
		t.Errorf("%s (old: %v)", diff, log.Old())
	}

	got, set, err := results.Read(path)
	if diff := cmp.Diff(both, set); err != nil || diff != "" || got != subject {
		t.Errorf("%v, %+v: %s", err, got, diff)
	}
}

func TestLogOfAnotherSubjectIsKeptAndNotMixed(t *testing.T) {
	for name, change := range map[string]func(*results.Subject){
		"commit":   func(s *results.Subject) { s.Commit = "c2" },
		"programs": func(s *results.Subject) { s.Programs = "p2" },
		"seats":    func(s *results.Subject) { s.Seats = "kubelet containerd upstream runc" },
		"suite":    func(s *results.Subject) { s.Suite = "v1.38.0" },
	} {
		path := filepath.Join(t.TempDir(), "results")
		grow(t, path, subject, false, passed)

		other := subject
		change(&other)
		log := grow(t, path, other, false)
		if len(log.Set()) != 0 || log.Old() == nil || *log.Old() != subject {
			t.Errorf("%s: %v, old %v", name, log.Set(), log.Old())
		}
		if old, set, err := results.Read(path + ".old"); err != nil || old != subject || len(set) != 1 {
			t.Errorf("%s: the old results: %v, %v, %v", name, old, set, err)
		}
	}
}

func TestFreshLogIsEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results")
	grow(t, path, subject, false, passed)
	if log := grow(t, path, subject, true); len(log.Set()) != 0 || log.Old() == nil {
		t.Errorf("%v, old %v", log.Set(), log.Old())
	}
}

func TestLineThatWasCutOffIsDropped(t *testing.T) {
	whole, err := os.ReadFile(written(t))
	if err != nil {
		t.Fatal(err)
	}

	lines := strings.SplitAfter(string(whole), "\n")
	complete := len(lines[0]) + len(lines[1])
	for cut := 0; cut < len(whole); cut += 7 {
		path := filepath.Join(t.TempDir(), "results")
		if err := os.WriteFile(path, whole[:cut], 0o644); err != nil {
			t.Fatal(err)
		}

		want := 0
		if cut >= complete {
			want = 1
		}

		log := grow(t, path, subject, false)
		if len(log.Set()) != want {
			t.Fatalf("%d of %d bytes: %v", cut, len(whole), log.Set())
		}
		if _, _, err := results.Read(path); err != nil {
			t.Fatalf("%d of %d bytes: after Open: %v", cut, len(whole), err)
		}
	}
}

// written is a log with two results.
func written(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "results")
	grow(t, path, subject, false, passed, failed)
	return path
}

func TestDamagedLogIsAnErrorThatSaysWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results")
	if err := os.WriteFile(path, []byte("\x00\x00\n{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := results.Open(path, subject, false); err == nil || !strings.Contains(err.Error(), "FRESH=1") {
		t.Errorf("error %v", err)
	}
	if log := grow(t, path, subject, true); len(log.Set()) != 0 {
		t.Errorf("fresh: %v", log.Set())
	}
}

func TestFilesOfShardsAreMerged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	for _, name := range []string{"[sig-a] B", "[sig-a] A"} {
		if err := results.Write(path, subject, both.Of([]string{name})); err != nil {
			t.Fatal(err)
		}
	}

	_, set, err := results.Read(path)
	if diff := cmp.Diff(both, set); err != nil || diff != "" {
		t.Errorf("%v: %s", err, diff)
	}

	other := subject
	other.Commit = "c2"
	if err := results.Write(path, other, both.Of([]string{"[sig-a] A"})); err != nil {
		t.Fatal(err)
	}
	if _, set, err := results.Read(path); err != nil || len(set) != 1 {
		t.Errorf("after a run of another commit: %v, %v", set, err)
	}
}

func TestJoinedFilesAreOfOneSubject(t *testing.T) {
	one, err := os.ReadFile(written(t))
	if err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(t.TempDir(), "joined")
	for text, good := range map[string]bool{
		string(one) + string(one):                                      true,
		string(one) + strings.Replace(string(one), "c1", "c2", 1):      false,
		`{"spec":"A","outcome":"passed"}` + "\n":                       false,
		strings.SplitAfter(string(one), "\n")[0] + "{}\n":              false,
		strings.SplitAfter(string(one), "\n")[0] + `{"nose":1}` + "\n": false,
		"": false,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := results.Read(path); (err == nil) != good {
			t.Errorf("error %v of\n%s", err, text)
		}
	}
}

func TestStateNeedsBothAttempts(t *testing.T) {
	skipped := suite.Result{Outcome: suite.Skipped}
	for want, r := range map[results.State]results.Record{
		results.Passed:  {First: passed},
		results.Flaky:   {First: failed, Second: &second},
		results.Failed:  {First: failed, Second: &failed},
		results.Skipped: {First: skipped},
	} {
		if got := r.State(); got != want {
			t.Errorf("%+v is %s, want %s", r, got, want)
		}
	}

	if (results.Record{First: failed}).State() != results.Failed {
		t.Error("a spec that failed once has not failed")
	}
	if m := (results.Record{First: failed, Second: &second}).Message(); m != "1 < 2" {
		t.Errorf("the message of a flaky spec is %q, want that of its failure", m)
	}
}

func TestLongMessagesAreCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results")
	long := failed
	long.Message = strings.Repeat("ä", 1000)
	grow(t, path, subject, false, long)
	_, set, err := results.Read(path)
	if m := set[long.Name].Message(); err != nil || len(m) > 310 || !strings.HasSuffix(m, "ä...") {
		t.Errorf("%v: %d bytes: %s", err, len(m), m)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"subject":{"suite":"v1"}}` + "\n" + `{"spec":"A","outcome":"passed","again":true}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "results")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}

		log, err := results.Open(path, subject, false)
		if err != nil {
			return
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := results.Read(path); err != nil {
			t.Errorf("a log that was opened cannot be read: %v", err)
		}
	})
}
