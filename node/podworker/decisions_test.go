package podworker

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/reason"
)

func TestAFailedStepIsToldInKubeletsWords(t *testing.T) {
	err := errors.New("it broke")
	pull := reason.WithEvent("ErrImagePull", reason.Event{Reason: "Failed", Message: "Failed to pull"}, err)
	grow := fmt.Errorf("volumes: %w", reason.New("FailedAttachVolume", err))
	for _, c := range []struct {
		verb plan.Verb
		err  error
		want []string
	}{
		{plan.Prepare, err, []string{"FailedMount: it broke"}},
		{plan.Prepare, grow, []string{"FailedAttachVolume: " + grow.Error()}},
		{plan.CreateSandbox, err, []string{"FailedCreatePodSandBox: Failed to create pod sandbox: it broke"}},
		{plan.StopSandbox, err, []string{"FailedKillPod: error killing pod: it broke"}},
		{plan.Pull, pull, []string{"Failed: Failed to pull", "Failed: Error: ErrImagePull"}},
		{plan.Start, reason.New("RunContainerError", err), []string{"Failed: Error: it broke"}},
		{plan.Start, pull, []string{"Failed: Failed to pull", "Failed: Error: it broke"}},
		{plan.Teardown, err, nil},
	} {
		var got []string
		for _, e := range failures(&v1.Pod{}, plan.Step{Verb: c.verb}, c.err) {
			got = append(got, e.Reason+": "+e.Message)
		}

		if !slices.Equal(got, c.want) {
			t.Errorf("%s with %v: %q, want %q", c.verb, c.err, got, c.want)
		}
	}
}

func TestANameIsHeldByOnePodUntilItIsFreed(t *testing.T) {
	var n names
	for _, c := range []struct {
		name string
		uid  types.UID
		want bool
	}{
		{"etcd", "a", true},
		{"etcd", "a", true},
		{"etcd", "b", false},
		{"other", "b", true},
	} {
		if got := n.take(c.name, c.uid); got != c.want {
			t.Errorf("%s takes %s: %v, want %v", c.uid, c.name, got, c.want)
		}
	}

	if freed := n.free("a"); freed != "etcd" || !n.take("etcd", "b") {
		t.Errorf("freed %q", freed)
	}
	if freed := n.free("nobody"); freed != "" {
		t.Errorf("freed %q", freed)
	}
}

func TestChangesThatCanWaitDoSoOnce(t *testing.T) {
	p := newPod("u", 0)
	at := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		name            string
		after           time.Duration
		changed, urgent bool
		want            time.Duration
	}{
		{"nothing changed", 0, false, false, 0},
		{"the first change", 0, true, false, patience},
		{"another one", 100 * time.Millisecond, true, false, patience - 100*time.Millisecond},
		{"the time is over", patience, true, false, 0},
		{"the next change", patience, true, false, patience},
		{"an urgent one takes it along", patience + 1, true, true, 0},
		{"and the next one begins to wait", 2 * patience, true, false, patience},
		{"until there is none", 2*patience + 1, false, false, 0},
		{"and so on", 3 * patience, true, false, patience},
	} {
		if got := p.hold(c.changed, c.urgent, at.Add(c.after)); got != c.want {
			t.Errorf("%s: waits %s, want %s", c.name, got, c.want)
		}
	}
}
