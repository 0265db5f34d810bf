package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustParse(t *testing.T, text string) page {
	t.Helper()
	p, err := parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSeriesOfTheTextFormat(t *testing.T) {
	p := mustParse(t, `# HELP a Something.
# TYPE a counter
a{x="1",y="quote \" and \\ and , and }"} 2.5 1700000000000
b 1e+06
# TYPE c histogram
c_bucket{le="+Inf"} 3
c_count 3
`)

	want := []series{
		{
			name:   "a",
			labels: map[string]string{"x": "1", "y": `quote " and \ and , and }`},
			value:  2.5,
			when:   1700000000000,
		},
		{name: "b", labels: map[string]string{}, value: 1e6},
		{name: "c_bucket", labels: map[string]string{"le": "+Inf"}, value: 3},
		{name: "c_count", labels: map[string]string{}, value: 3},
	}
	if diff := cmp.Diff(want, p.series, cmp.AllowUnexported(series{})); diff != "" {
		t.Error(diff)
	}
	if got := p.family("c_bucket") + " " + p.family("a_count"); got != "c a_count" {
		t.Errorf("families %q", got)
	}
}

func TestWhatIsNotTheFormatIsAnError(t *testing.T) {
	for _, line := range []string{"a", "a{", `a{x="1}`, `a{x} 1`, "a x", "a 1 2 3", "a 1 x"} {
		if _, err := parse([]byte(line)); err == nil {
			t.Errorf("%q is taken", line)
		}
	}
}

func TestFamiliesAreComparedByTheirPods(t *testing.T) {
	const (
		pod   = `{namespace="scrape",pod="burn-%s",container="main",cpu="total",id="/x"}`
		pod0  = `{namespace="scrape",pod="burn-%s",container="main",id="/y"}`
		types = "# TYPE usage counter\n# TYPE there gauge\n# TYPE gone gauge\n"
	)

	of := func(labels, node, usage, memory string) string {
		labels = strings.ReplaceAll(labels, "%s", node)
		return types + "usage" + labels + " " + usage + "\nthere" + labels + " " + memory + "\n"
	}

	ours := snapshots{
		first:   mustParse(t, of(pod0, "a", "10", "4")),
		last:    mustParse(t, of(pod0, "a", "30", "6")),
		seconds: 10,
	}

	theirs := snapshots{
		first:   mustParse(t, of(pod, "b", "1", "5")+"gone 1\n"),
		last:    mustParse(t, of(pod, "b", "41", "5")+"gone 1\n"),
		seconds: 10,
	}

	want := []row{
		{name: "gone", kind: "gauge"},
		{
			name:    "there",
			kind:    "gauge",
			there:   true,
			missing: []string{"cpu"},
			where:   "burn/main",
			theirs:  5,
			ours:    5,
			groups:  1,
		},
		{
			name:    "usage",
			kind:    "counter",
			there:   true,
			missing: []string{"cpu"},
			where:   "burn/main",
			theirs:  4,
			ours:    2,
			groups:  1,
			off:     1,
		},
	}
	if diff := cmp.Diff(want, compare(ours, theirs), cmp.AllowUnexported(row{})); diff != "" {
		t.Error(diff)
	}
}

func TestRateIsByTheTimesOfTheSamples(t *testing.T) {
	of := func(value string) page { return mustParse(t, "# TYPE a counter\na "+value+"\n") }
	s := snapshots{first: of("10 1000"), last: of("30 5000"), seconds: 100}
	if got := s.families()["a"].values[wholeNode]; got != 5 {
		t.Errorf("rate %v, want 5 a second", got)
	}
}

func TestSummaryIsAPage(t *testing.T) {
	p, err := summaryPage([]byte(`{"node": {"cpu": {"usageCoreNanoSeconds": 7}}, "pods": [{
		"podRef": {"name": "burn-a", "namespace": "scrape"},
		"containers": [{"name": "main", "memory": {"rssBytes": 3}}],
		"volume": [{"name": "x", "usedBytes": 1}, {"name": "y", "usedBytes": 2}]}]}`))
	if err != nil {
		t.Fatal(err)
	}

	families := snapshots{last: p, first: p, seconds: 1}.families()
	for name, want := range map[string]map[string]float64{
		"node.cpu.usageCoreNanoSeconds":  {wholeNode: 0},
		"pod.containers.memory.rssBytes": {"burn/main": 3},
		"pod.volume.usedBytes":           {"burn": 3},
	} {
		if diff := cmp.Diff(want, families[name].values); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestTableMarksWhatDashboardsNeed(t *testing.T) {
	var out strings.Builder
	needs := []need{
		{Page: "/metrics", Name: "gone_from_ours", Labels: []string{"node"}},
		{Page: "/metrics", Name: "pods", Labels: []string{"state"}},
		{Page: "/metrics", Name: "evictions"},
		{Page: "/other", Name: "made_up"},
	}

	table{&out, "/metrics", needs}.print([]row{
		{name: "gone_from_ours"},
		{name: "made_up"},
		{name: "pods", there: true, missing: []string{"id", "state"}, where: wholeNode, groups: 1},
		{name: "same", there: true, where: wholeNode, theirs: 2, ours: 2, groups: 1},
	})

	for _, want := range []string{
		"* gone_from_ours", "MISSING", "* pods", "id state!", "1: made_up", "this kubelet: evictions",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}

	if strings.Contains(out.String(), "same") {
		t.Errorf("what is equal and not needed is shown:\n%s", &out)
	}
}

func TestListOfWhatIsNeededIsRead(t *testing.T) {
	needs, err := readNeeds("../../../docs/data/mixin-metrics.json")
	if err != nil {
		t.Fatal(err)
	}

	n := needOf(needs, "/metrics/cadvisor", "container_cpu_cfs_periods_total")
	if n == nil || !slices.Contains(n.Labels, "container") {
		t.Errorf("needed of the periods of a container: %+v", n)
	}
}
