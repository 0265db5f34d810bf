package undo_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/undo"
)

// build runs three steps and fails at the given one.
func build(ctx context.Context, failAt string, undone *[]string) (err error) {
	var u undo.Stack
	defer u.Unwind(ctx, &err)

	for _, name := range []string{"a", "b", "c"} {
		if name == failAt {
			return errors.New(name + " failed")
		}

		u.Push(name, func(ctx context.Context) error {
			*undone = append(*undone, name)
			if name == "b" {
				return errors.Join(ctx.Err(), errors.New("stuck"))
			}

			return ctx.Err()
		})
	}

	return nil
}

func TestUnwindGoesBackInReverseThoughAStepFailsAndTheCallerIsGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var undone []string
	err := build(ctx, "c", &undone)
	if strings.Join(undone, "") != "ba" {
		t.Errorf("undone %q, want b then a", undone)
	}
	if err == nil || !strings.Contains(err.Error(), "c failed") ||
		!strings.Contains(err.Error(), "undo b: stuck") || strings.Contains(err.Error(), "canceled") {
		t.Errorf("error %v", err)
	}
}

func TestUnwindKeepsWhatSucceeded(t *testing.T) {
	var undone []string
	if err := build(t.Context(), "", &undone); err != nil || len(undone) != 0 {
		t.Errorf("undone %q, %v", undone, err)
	}
}
