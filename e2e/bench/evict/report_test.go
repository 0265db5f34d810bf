package main

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestSidesAgreeButForQuantities(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{
			"Threshold quantity: 857001984, available: 648628Ki.",
			"Threshold quantity: 12, available: 1.5Gi.",
			true,
		},
		{"Container main was using 24Ki", "Container c was using 24Ki", false},
		{"main Error exit=++137", "main Error exit=3", false},
		{"main Error exit=++137", "main Error exit=++143", true},
		{"", "x", false},
	} {
		if got := (row{values: []string{c.a, c.b}}).same(); got != c.want {
			t.Errorf("%q and %q: same %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

func TestReportShowsWhatIsTheSameOnceAndMarksDifferences(t *testing.T) {
	ours, theirs := newRecord(), newRecord()
	for _, r := range []*record{ours, theirs} {
		r.seen("hog", 1, corev1.PodRunning, "")
		r.seen("quiet", 1, corev1.PodRunning, "")
		r.seen("hog", 3, corev1.PodFailed, "Evicted")
	}

	ours.pods["hog"].events = []event{{
		kind:        "Warning",
		reason:      "Evicted",
		message:     "low",
		annotations: map[string]string{"starved_resource": "memory"},
		count:       2,
	}}

	var out strings.Builder
	report(
		&out,
		testCase{name: "memory", about: "test"},
		[]string{"trivet", "kubelet"},
		[]*record{ours, theirs},
	)

	for _, want := range []string{
		"== memory: test",
		"   evicted                            hog\n",
		"   quiet: phase                       Running\n",
		" ! hog: events                        trivet   Warning Evicted: low (x2)\n",
		" !                                    kubelet  -\n",
		"Evicted starved_resource=memory",
		"   hog: evicted after                 trivet   2.0 s",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}

func TestPodsOfACaseHaveNamesOfTheirOwnAndThoseEvictedAreAmongThem(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range cases {
		if seen[c.name] {
			t.Errorf("two cases are called %s", c.name)
		}

		seen[c.name] = true
		pods := map[string]bool{}
		for _, list := range [][]workload{c.before, c.pods, c.last, c.late} {
			for _, w := range list {
				if pods[w.name] {
					t.Errorf("%s: two pods are called %s", c.name, w.name)
				}

				pods[w.name] = true
				if pod := w.pod("node1"); pod.Spec.NodeName != "node1" || len(pod.Spec.Containers) == 0 {
					t.Errorf("%s: pod %s: %+v", c.name, w.name, pod.Spec)
				}
			}
		}

		for _, name := range c.evicted {
			if !pods[name] {
				t.Errorf("%s: no pod is called %s", c.name, name)
			}
		}
	}
}
