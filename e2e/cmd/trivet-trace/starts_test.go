package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/picture"
	"github.com/trivet-node/trivet/internal/trace/receiver"
)

var created = time.Unix(1000, 0)

// span is one of a trace, whose times are in milliseconds after the pod was created.
func span(service, name, id, parent string, began, ended int) receiver.Span {
	return receiver.Span{
		Service: service,
		Name:    name,
		Trace:   "t",
		ID:      id,
		Parent:  parent,
		Began:   created.Add(time.Duration(began) * time.Millisecond),
		Ended:   created.Add(time.Duration(ended) * time.Millisecond),
	}
}

func TestSpansOfOtherPodsAndOfOtherTimesAreLeftOut(t *testing.T) {
	mine := span("trivet-node", "pod start", "1", "", 1, 50)
	mine.Attributes = map[string]string{"k8s.pod.uid": "u"}
	below := span("trivet-cri", "RunPodSandbox", "2", "1", 5, 12)
	late := span("trivet-node", "probe", "3", "1", 70, 80)
	others := span("trivet-node", "pod start", "4", "", 1, 50)
	others.Trace = "another"

	pod := bench.Traced{
		Name:    "web",
		UID:     "u",
		Created: created,
		Ready:   created.Add(60 * time.Millisecond),
	}

	got := ofPod([]receiver.Span{mine, below, late, others}, pod)
	if len(got) != 2 || got[0].ID != "1" || got[1].ID != "2" {
		t.Errorf("%+v", got)
	}
}

func TestACallIsShownOnceByTheProgramThatServesIt(t *testing.T) {
	s := start{
		what: "trivet + trivet",
		pod:  bench.Traced{Created: created, Ready: created.Add(60 * time.Millisecond)},
		spans: []receiver.Span{
			span("trivet-node", "pod start", "1", "gone", 1, 50),
			span("trivet-node", "RunPodSandbox", "2", "1", 5, 12),
			span("trivet-cri", "RunPodSandbox", "3", "2", 6, 12),
			span("trivet-cri", "CNI trivet-cni", "4", "3", 7, 11),
		},
	}

	want := picture.Start{
		What: "trivet + trivet",
		Took: 60,
		Bars: []picture.Bar{
			{What: "pod start", Program: "trivet-node", At: 1, Took: 49},
			{What: "RunPodSandbox", Program: "trivet-cri", Depth: 1, At: 6, Took: 6},
			{What: "CNI trivet-cni", Program: "trivet-cri", Depth: 2, At: 7, Took: 4},
		},
	}
	if diff := cmp.Diff(want, waterfall(s)); diff != "" {
		t.Error(diff)
	}
}
