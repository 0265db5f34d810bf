package specs

import (
	"regexp"
	"strings"
	"testing"
)

func TestSmokeSetHas158DistinctSpecs(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range Smoke() {
		if seen[n] {
			t.Errorf("%s is listed twice", n)
		}

		seen[n] = true
		if !strings.HasPrefix(n, "[sig-") {
			t.Errorf("%q is not a spec name", n)
		}
	}

	// A spec that is added or dropped is added or dropped here, too.
	if len(seen) != 158 {
		t.Errorf("%d specs, want 158", len(seen))
	}
}

func TestFocusMatchesJustTheNames(t *testing.T) {
	re := regexp.MustCompile(focusOn([]string{"[sig-node] Pods should be updated [Conformance]", "a.b (c)"}))
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

const report = `<?xml version="1.0"?><testsuites><testsuite>
<testcase name="[It] [sig-node] A works [Conformance] [sig-node, Conformance]" status="passed" time="1.5">
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
	for i, r := range pick(found, names) {
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

func TestFollowPrintsALineForEachSpecThatEnds(t *testing.T) {
	out := "noise\n• [2.405 seconds]\n[sig-node] A works\n  detail\n• [FAILED] [12.1 " +
		"seconds]\n[sig-node] B works\nx\nS [SKIPPED] [0.1 seconds]\n[sig-node] C\n"
	var got strings.Builder
	follow(strings.NewReader(out), 3, &got)
	want := "  1/3 passed   2.405s [sig-node] A works\n  2/3 failed    12.1s [sig-node] B works\n  3/3 " +
		"skipped    0.1s [sig-node] C\n"
	if got.String() != want {
		t.Errorf("progress\n%s\nwant\n%s", got.String(), want)
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(report))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := readReport(data)
		if err == nil {
			pick(found, Smoke())
		}
	})
}
