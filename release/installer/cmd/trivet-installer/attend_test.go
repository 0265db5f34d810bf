package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/program"
)

func attendArgs(args ...string) (attendFlags, error) {
	var out strings.Builder
	return parseAttend(&program.Env{
		Name:   "trivet-installer",
		Args:   append([]string{"--node-name=n1"}, args...),
		Stdout: &out,
		Stderr: &out,
	})
}

func TestTimesOfATrialAreChecked(t *testing.T) {
	for _, arg := range []string{"--prove=0", "--prove=-1s", "--ready-timeout=0s"} {
		_, err := attendArgs(arg)
		_, isUsage := errors.AsType[*program.UsageError](err)
		if flag, _, _ := strings.Cut(arg, "="); !isUsage || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", arg, err)
		}
	}

	f, err := attendArgs("--prove=20s")
	if err != nil || f.prove != 20*time.Second || f.trial != 2*time.Minute {
		t.Errorf("flags %+v, %v", f, err)
	}
}
