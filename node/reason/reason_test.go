package reason

import (
	"errors"
	"fmt"
	"testing"
)

func TestTheReasonIsFoundBelowOtherErrors(t *testing.T) {
	cause := errors.New("no such image")
	event := Event{Reason: "Failed", Message: "Failed to pull image"}
	err := fmt.Errorf("volume: %w", WithEvent("ErrImagePull", event, cause))
	if Of(err) != "ErrImagePull" || *EventOf(err) != event {
		t.Errorf("reason %q, event %+v", Of(err), EventOf(err))
	}
	if !errors.Is(err, cause) || err.Error() != "volume: no such image" {
		t.Errorf("the text shows the reason, or the cause is lost: %v", err)
	}
}

func TestOtherErrorsHaveNeitherReasonNorEvent(t *testing.T) {
	for _, err := range []error{nil, errors.New("x")} {
		if Of(err) != "" || EventOf(err) != nil {
			t.Errorf("%v has reason %q and event %v", err, Of(err), EventOf(err))
		}
	}
	if EventOf(New("Bad", errors.New("x"))) != nil {
		t.Error("an event out of nothing")
	}
}
