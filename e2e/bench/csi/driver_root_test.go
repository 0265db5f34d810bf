package main

import (
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

// A driver that ends at once, as where it cannot run, is not waited for.
func TestDriverThatEndsIsNotWaitedFor(t *testing.T) {
	testenv.Root(t)
	for program, want := range map[string]string{"true": "exit status 0", "false": "exit status 1"} {
		b := &bench{options: options{binary: program}}
		b.dir = testenv.ShortDir(t)
		if err := b.start(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", program, err, want)
		}
	}
}
