package page

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/specs/exceptions"
	"github.com/trivet-node/trivet/e2e/specs/results"
	"github.com/trivet-node/trivet/e2e/specs/suite"
)

const docs = "../../../docs"

func TestPagesFollowFromTheCommittedResults(t *testing.T) {
	d, err := Load(filepath.Join(docs, "data", "conformance"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Check(); err != nil {
		t.Error(err)
	}

	for file, want := range map[string]string{
		"conformance.md":         Conformance(d),
		"conformance-outside.md": Outside(d),
	} {
		got, err := os.ReadFile(filepath.Join(docs, file))
		if err != nil || string(got) != want {
			t.Errorf("%s is not what follows from the results, %v: run make conformance-page", file, err)
		}
	}
}

func TestEverySpecOfTheSetIsOnThePage(t *testing.T) {
	d, err := Load(filepath.Join(docs, "data", "conformance"))
	if err != nil {
		t.Fatal(err)
	}

	_, table, _ := strings.Cut(Conformance(d), "## Every spec\n")
	if rows := strings.Count(table, "\n| ") - 2*len(sigs(d.Names)); rows != len(d.Names) {
		t.Errorf("%d rows of %d specs", rows, len(d.Names))
	}

	for _, n := range d.Names {
		_, short, _ := strings.Cut(n, "] ")
		if !strings.Contains(table, "| "+cell(short)+" |") {
			t.Errorf("%s is not on the page", n)
		}
	}
}

// small is data of a suite with four specs.
func small() Data {
	took := 1500 * time.Millisecond
	failed := suite.Result{Outcome: suite.Failed, Took: took, Message: "no <nil> | dummy_link"}
	passed := suite.Result{Outcome: suite.Passed, Took: took}
	record := func(name string, first suite.Result, second *suite.Result) results.Record {
		return results.Record{Spec: name, First: first, Second: second}
	}

	return Data{
		Version: "v1",
		Names:   []string{"[sig-a] A", "[sig-a] B", "[sig-b] C", "[sig-b] D"},
		Ours: Run{
			Subject: results.Subject{Suite: "v1", Seats: "ours"},
			Set: results.Set{
				"[sig-a] A": record("[sig-a] A", passed, nil),
				"[sig-a] B": record("[sig-a] B", failed, &passed),
				"[sig-b] C": record("[sig-b] C", failed, &failed),
				"[sig-b] D": record("[sig-b] D", failed, &failed),
			},
		},
		Exceptions: exceptions.Exceptions{"[sig-b] D": "kernel: no dummy links"},
	}
}

func TestPageShowsStatesAndReasons(t *testing.T) {
	text := Conformance(small())
	for _, want := range []string{
		"| sig-a | 2 | 1 | 1 | 0 | 0 | 0 | 0 | 0 |\n| sig-b | 2 | 0 | 0 | 1 | 1 | 0 | 0 | 0 |\n" +
			"| all | 4 | 1 | 1 | 1 | 1 | 0 | 0 | 0 |\n",
		`| [sig-b] C | failed | not run | no &lt;nil&gt; \| dummy\_link |`,
		"| [sig-b] D | excepted | not run | kernel: no dummy links |",
		"| A | passed | not run | 1.5 |",
		"| B | flaky | not run | 1.5 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not have %q:\n%s", want, text)
		}
	}
}

func TestDataThatCannotBeRightIsAnError(t *testing.T) {
	passes := func(d *Data) {
		d.Kubelets = Run{Subject: results.Subject{Suite: "v1", Seats: "theirs"}, Set: results.Set{}}
		for n := range d.Ours.Set {
			d.Kubelets.Set[n] = results.Record{Spec: n, First: suite.Result{Outcome: suite.Passed}}
		}
	}

	for name, test := range map[string]struct {
		change func(*Data)
		fault  string
	}{
		"as it is": {func(*Data) {}, ""},
		"a spec without a result": {
			func(d *Data) { delete(d.Ours.Set, "[sig-a] A") },
			"no result with ours of 1 specs, such as [sig-a] A",
		},
		"a result of another spec": {func(d *Data) { d.Names = d.Names[1:] }, "which is not of the set"},
		"another suite":            {func(d *Data) { d.Version = "v2" }, "are of e2e.test v1, not v2"},
		"an exception that passes": {
			func(d *Data) { d.Exceptions["[sig-a] A"] = "kernel: x" },
			"it is passed",
		},
		"an exception that is flaky": {
			func(d *Data) { d.Exceptions["[sig-a] B"] = "kernel: x" }, "it is flaky",
		},
		"an exception of nothing": {
			func(d *Data) { d.Exceptions["[sig-x] Q"] = "kernel: x" },
			"has no spec [sig-x] Q",
		},
		"an exception that kubelet passes": {passes, "with theirs it is passed"},
	} {
		d := small()
		test.change(&d)
		err := d.Check()
		if (err == nil) != (test.fault == "") || err != nil && !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%s: %v, want %q", name, err, test.fault)
		}
	}
}

func TestOutsideShowsReasonsOfSkips(t *testing.T) {
	skip := func(name, reason string) results.Record {
		return results.Record{
			Spec:  name,
			First: suite.Result{Outcome: suite.Skipped, Message: "skipped - " + reason},
		}
	}

	d := Data{Outside: map[string]Run{"network": {
		Subject: results.Subject{Commit: "c", Date: "2026-11-29"},
		Set: results.Set{
			"[sig-network] A": skip("[sig-network] A", "no driver"),
			"[sig-network] B": skip("[sig-network] B", "no SSH"),
			"[sig-network] C": skip("[sig-network] C", "no SSH"),
		},
	}}}

	text := Outside(d)
	for _, want := range []string{
		"2026-11-29, commit c",
		"3 specs: 0 passed, 0 flaky, 0 failed, 3 skipped.",
		"| no SSH (2) | [sig-network] B<br>[sig-network] C |\n| no driver (1) | [sig-network] A |",
		"## storage\nNot run.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not have %q:\n%s", want, text)
		}
	}
}
