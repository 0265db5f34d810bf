package suite

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestFocusMatchesJustTheNames(t *testing.T) {
	names := []string{"[sig-node] Pods should be updated [Conformance]", "a.b (c)"}
	re := regexp.MustCompile(strings.Join(focusOn("", names), "|"))
	for text, want := range map[string]bool{
		"[sig-node] Pods should be updated [Conformance]": true,
		"a.b (c)": true,
		"axb (c)": false,
		"[sig-node] Pods should be updated [Conformance] [NodeConformance]": false,
	} {
		if re.MatchString(text) != want {
			t.Errorf("match of %q: %v, want %v", text, !want, want)
		}
	}
}

func TestFocusOnManySpecsIsSeveralArguments(t *testing.T) {
	names := make([]string, 4000)
	for i := range names {
		names[i] = fmt.Sprint(i, strings.Repeat(" [sig]", 100))
	}

	flags := focusOn("--focus=", names)
	for _, f := range flags {
		if len(f) >= 128<<10 || !strings.HasPrefix(f, "--focus=(") {
			t.Errorf("an argument of %d bytes: %.20s", len(f), f)
		}
	}
	if all := strings.Join(flags, ""); strings.Count(all, `\[sig\]`) != 100*len(names) {
		t.Error("names are missing")
	}
}

const report = `<?xml version="1.0"?><testsuites><testsuite>
<testcase name="[It] [sig-node] A works [Conformance] [sig-node, Slow] [a: [>=1.36]]" status="passed"
	time="1.5">
</testcase>
<testcase name="[It] [sig-node] B works [Slow]" status="failed" time="2">
<failure message="boom&#xA;more" type="x"></failure></testcase>
<testcase name="[It] [sig-node] B fails" status="failed" time="2">
<failure type="x">in the text&#xA;more</failure></testcase>
<testcase name="[It] [sig-node] C works" status="skipped" time="0">
<skipped message="skipped - no"></skipped></testcase>
<testcase name="[SynchronizedBeforeSuite]" status="passed" time="0"></testcase>
</testsuite></testsuites>`

func TestReportGivesOneResultAName(t *testing.T) {
	found, err := readReport([]byte(report))
	if err != nil {
		t.Fatal(err)
	}

	names := []string{
		"[sig-node] A works [Conformance]",
		"[sig-node] B works [Slow]",
		"[sig-node] C works",
		"[sig-node] D works",
	}

	want := []Outcome{Passed, Failed, Skipped, Missing}
	picked, err := pick(found, names)
	if err != nil {
		t.Fatal(err)
	}

	for i, r := range picked {
		if r.Outcome != want[i] || r.Name != names[i] {
			t.Errorf("result %d is %+v, want %s %s", i, r, want[i], names[i])
		}
	}

	if m := found[names[1]].Message; m != "boom" {
		t.Errorf("message %q, want the first line", m)
	}
	if m := found["[sig-node] B fails"].Message; m != "in the text" {
		t.Errorf("message %q of a failure without the attribute, want the first line of its text", m)
	}
}

func TestSuiteThatDidNotBeginIsAnError(t *testing.T) {
	_, err := readReport([]byte(`<testsuites><testsuite>
		<testcase name="[SynchronizedBeforeSuite]" status="failed">
		<failure message="timed out waiting for 2 pods&#xA;more" type="failed"></failure></testcase>
		</testsuite></testsuites>`))
	if err == nil || err.Error() != "the suite did not begin: timed out waiting for 2 pods" {
		t.Errorf("error %v", err)
	}
}

// output is what ginkgo prints about four specs in several processes, in short.
const output = `Running Suite: Kubernetes e2e suite
------------------------------
[SynchronizedBeforeSuite] PASSED [0.029 seconds]
[SynchronizedBeforeSuite]
------------------------------
SSSSSS
------------------------------
• [2.405 seconds]
[sig-node] A works [Conformance] [sig-node, Conformance] [kubelet: [>=1.36]]
k8s.io/kubernetes@v1.37.2/test/e2e/common/node/pods.go:1

  Timeline >>
  [FAILED] is a word that a spec may print
  << Timeline
------------------------------
• [FAILED] [12.1 seconds]
[sig-network] B [It] works [sig-network]
k8s.io/kubernetes@v1.37.2/test/e2e/network/b.go:1

  Timeline >>
  [FAILED] in [It] - k8s.io/kubernetes@v1.37.2/test/e2e/network/b.go:5 @ 11/29/26 01:34:21.706
  << Timeline

  [FAILED] Timed out after 300.002s.
  more
  In [It] at: k8s.io/kubernetes@v1.37.2/test/e2e/network/b.go:5 @ 11/29/26 01:34:21.706
------------------------------
S
------------------------------
S [SKIPPED] [0.1 seconds]
TOP-LEVEL [BeforeEach]
[sig-storage] ignored
------------------------------
S [SKIPPED] [0.1 seconds]
[sig-storage] C [BeforeEach] works [sig-storage, Slow]
  [SKIPPED] Only for driver X
------------------------------
• [INTERRUPTED] [3 seconds]
[sig-node] D works [sig-node]
------------------------------
S [SKIPPED] [0.2 seconds]
External Storage [Driver: a.example] [Testpattern: Dynamic PV] volumes [It] works [Slow] [Driver: a.example]
  [SKIPPED] Only for driver Y
------------------------------
• [PANICKED] [3 seconds]
[sig-node] E [DeferCleanup (Each)] works [sig-node]
  [PANICKED] Test Panicked`

func TestSpecsThatEndAreSeenInTheOutput(t *testing.T) {
	var got []Result
	follow(strings.NewReader(output), func(r Result) { got = append(got, r) })

	want := []Result{
		{Name: "[sig-node] A works [Conformance]", Outcome: Passed, Took: 2405 * time.Millisecond},
		{
			Name:    "[sig-network] B works",
			Outcome: Failed,
			Took:    12100 * time.Millisecond,
			Message: "Timed out after 300.002s.",
		},
		{
			Name:    "[sig-storage] C works",
			Outcome: Skipped,
			Took:    100 * time.Millisecond,
			Message: "Only for driver X",
		},
		{
			Name:    "External Storage [Driver: a.example] [Testpattern: Dynamic PV] volumes works [Slow]",
			Outcome: Skipped,
			Took:    200 * time.Millisecond,
			Message: "Only for driver Y",
		},
		{
			Name:    "[sig-node] E works",
			Outcome: Failed,
			Took:    3 * time.Second,
			Message: "Test Panicked",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestResultsHaveTheNamesOfTheListing(t *testing.T) {
	names := []string{"A [Testpattern:  (retain policy)] should work", "B works"}
	var got []string
	ended := asListed(names, func(r Result) { got = append(got, r.Name) })
	for _, printed := range []string{"A [Testpattern:  (retain policy)]  should work", "B works", "C"} {
		ended(Result{Name: printed})
	}
	if want := append(names, "C"); !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
}

func TestLinesOfPassedSpecsHaveNoMessage(t *testing.T) {
	if m := messageOf("  [FAILED] in [It] - b.go:5", "before"); m != "before" {
		t.Errorf("message %q, want what was found before", m)
	}
}

func TestReportThatWasCutOffIsAnError(t *testing.T) {
	for _, text := range []string{"", report[:len(report)/2]} {
		if _, err := readReport([]byte(text)); err == nil || !strings.Contains(err.Error(), "cut off") {
			t.Errorf("%d bytes of a report: error %v", len(text), err)
		}
	}
}

func TestSuiteThatEndedTooEarlyIsAnError(t *testing.T) {
	found := map[string]Result{
		"A": {Name: "A", Outcome: Passed},
		"B": {Name: "B", Outcome: Skipped, Message: "skipped"},
	}
	_, err := pick(found, []string{"A", "B"})
	if err == nil || !strings.Contains(err.Error(), "ended before 1 of 2 specs had run") {
		t.Errorf("error %v", err)
	}
}

func TestNamesAreThoseOfTheListing(t *testing.T) {
	got := listed(`The following spec names can be used with 'ginkgo run --focus/skip':
    k8s.io/kubernetes@v1.37.2/test/e2e/a.go:260: [sig-node] A: works (aka. B) [Conformance]
    k8s.io/kubernetes@v1.37.2/test/e2e/b.go:1: [sig-node] B

`)
	if want := []string{"[sig-node] A: works (aka. B) [Conformance]", "[sig-node] B"}; !slices.Equal(
		got,
		want,
	) {
		t.Errorf("names %q, want %q", got, want)
	}
}

func TestSuiteIsFollowedWhenItsOutputCannotBeKept(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		testenv.Skip(t, "there is no /dev/full: %v", err)
	}
	defer full.Close()

	script := "printf '• [2.405 seconds]\\n[sig-node] A works\\n'; echo end >&2"
	var got []string
	err = runLogged(
		exec.CommandContext(t.Context(), "sh", "-c", script),
		full,
		func(r Result) { got = append(got, r.Name) },
	)
	if err == nil || !strings.Contains(err.Error(), "no space left") ||
		!slices.Equal(got, []string{"[sig-node] A works"}) {
		t.Errorf("%v, results %q", err, got)
	}
}

func TestSuiteIsToldHowManyNodesThereAre(t *testing.T) {
	e2e := E2E{Program: "e2e.test", Ginkgo: "ginkgo", Nodes: 2}
	for procs, want := range map[int]string{1: "e2e.test", 4: "ginkgo"} {
		program, args := e2e.line(Batch{Specs: []string{"A"}, Procs: procs})
		if program != want || !slices.Contains(args, "--num-nodes=2") {
			t.Errorf("%d processes: %s %q", procs, program, args)
		}
	}
}

func TestSuiteIsToldOfDrivers(t *testing.T) {
	e2e := E2E{Program: "e2e.test", Ginkgo: "ginkgo", Drivers: []string{"/a.yaml", "/b.yaml"}}
	for _, procs := range []int{1, 4} {
		_, args := e2e.line(Batch{Specs: []string{"A"}, Procs: procs})
		for _, want := range []string{"--storage.testdriver=/a.yaml", "--storage.testdriver=/b.yaml"} {
			if !slices.Contains(args, want) {
				t.Errorf("%d processes: %q, want %s", procs, args, want)
			}
		}
	}
}

func FuzzOutput(f *testing.F) {
	f.Add(output)
	f.Fuzz(func(t *testing.T, text string) {
		follow(strings.NewReader(text), func(r Result) {
			if r.Name == "" || r.Outcome == "" {
				t.Errorf("result %+v", r)
			}
		})
	})
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(report))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := readReport(data)
		if err == nil {
			_, _ = pick(found, []string{"A", "B"})
		}
	})
}
