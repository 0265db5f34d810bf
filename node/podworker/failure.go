package podworker

import (
	"cmp"
	"fmt"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/reason"
)

// Steps send the events of what they do: Pulling, Started, Killing. Those of a step that failed are sent here
// and nowhere else.

// reportFailure sends the events of a failed step, with kubelet's reasons, and logs it.
func (w *Worker) reportFailure(pod *v1.Pod, s plan.Step, err error) {
	for _, e := range failures(s, err) {
		w.deps.Events.Pod(pod, s.Name, v1.EventTypeWarning, e.Reason, e.Message)
	}

	w.deps.Log.Warn("step failed",
		"pod", fullName(pod),
		"step", s.Key(),
		"reason", reason.Of(err),
		"err", err,
	)
}

// failures returns the events of a failed step: first that of the error itself, if it has one, then that of
// the step.
func failures(s plan.Step, err error) (out []reason.Event) {
	if e := reason.EventOf(err); e != nil {
		out = append(out, *e)
	}

	switch s.Verb {
	case plan.Prepare:
		why := cmp.Or(reason.Of(err), "FailedMount")
		out = append(out, reason.Event{Reason: why, Message: err.Error()})
	case plan.CreateSandbox:
		message := fmt.Sprintf("Failed to create pod sandbox: %v", err)
		out = append(out, reason.Event{Reason: "FailedCreatePodSandBox", Message: message})
	case plan.StopSandbox:
		message := fmt.Sprintf("error killing pod: %v", err)
		out = append(out, reason.Event{Reason: "FailedKillPod", Message: message})
	case plan.Pull:
		out = append(out, reason.Event{Reason: "Failed", Message: "Error: " + reason.Of(err)})
	case plan.Start:
		out = append(out, reason.Event{Reason: "Failed", Message: fmt.Sprintf("Error: %v", err)})
	}

	return out
}
