package patience

import (
	"slices"
	"testing"
	"time"
)

func TestEverythingTakesAsManyTimesLongerAsTheEnvironmentSays(t *testing.T) {
	t.Setenv("TRIVET_PATIENCE", "5")
	if got := Of(time.Minute); got != 5*time.Minute {
		t.Errorf("a minute is %s, want 5m", got)
	}

	args := []string{"wait", "--timeout=90s", "--timeout=x", "pod/p"}
	want := []string{"wait", "--timeout=7m30s", "--timeout=x", "pod/p"}
	if got := OfArgs(args); !slices.Equal(got, want) || args[1] != "--timeout=90s" {
		t.Errorf("%q of %q, want %q", got, args, want)
	}
}
