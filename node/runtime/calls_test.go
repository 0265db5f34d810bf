package runtime_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

func TestWhatIsGoneIsASuccess(t *testing.T) {
	_, c := connect(t)
	for name, err := range map[string]error{
		"stop of a container":    c.StopContainer(t.Context(), "nope", 0),
		"removal of a container": c.RemoveContainer(t.Context(), "nope"),
		"stop of a sandbox":      c.StopSandbox(t.Context(), "nope"),
		"removal of a sandbox":   c.RemoveSandbox(t.Context(), "nope"),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsAreInPlainWordsAndKeepTheirCode(t *testing.T) {
	s, c := connect(t)
	s.FailOn("RunPodSandbox", errors.New("no network"))
	_, err := c.RunSandbox(t.Context(), &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{}}, "")
	if err == nil || err.Error() != "no network" || status.Code(err) != codes.Unknown {
		t.Errorf("error %v, code %v", err, status.Code(err))
	}

	s.FailOn("Exec", status.Error(codes.ResourceExhausted, "too many"))
	_, err = c.Exec(t.Context(), "id", []string{"x"}, runtime.Streams{Stdout: true})
	if !errors.Is(err, runtime.ErrTooManyStreams) || err.Error() != "too many" {
		t.Errorf("error %v", err)
	}
}

func TestGraceIsRoundedUpToWholeSeconds(t *testing.T) {
	s, c := connect(t)
	id := container(t, c, "a", sandbox(t, c, "a", 0), 0)
	if err := c.StopContainer(t.Context(), id, 1500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if want := "StopContainer c/0 2"; !slices.Contains(s.Calls(), want) {
		t.Errorf("calls %v, want %q", s.Calls(), want)
	}
}

func TestCommandsReturnBothOutputsAndTheirCode(t *testing.T) {
	s, c := connect(t)
	out, code, err := c.ExecSync(t.Context(), "id", []string{"true"}, time.Second)
	if string(out) != "outerr" || code != 0 || err != nil {
		t.Errorf("true: %q, %d, %v", out, code, err)
	}
	if _, code, err = c.ExecSync(t.Context(), "id", []string{"false"}, 0); code != 1 || err != nil {
		t.Errorf("false: %d, %v", code, err)
	}

	s.FailOn("ExecSync", status.Error(codes.DeadlineExceeded, "too slow"))
	_, _, err = c.ExecSync(t.Context(), "id", []string{"sleep"}, time.Second)
	if !errors.Is(err, runtime.ErrTimeout) || err.Error() != "timed out: too slow" {
		t.Errorf("sleep: %v", err)
	}
}
