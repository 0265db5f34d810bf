package streaming_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/cri/streaming"
)

func TestExecSync(t *testing.T) {
	runtimes(t, func(t *testing.T, runtime string) {
		n := start(t, runtime, idle, nil)
		r, err := n.server.ExecSync(t.Context(), "c", sh("echo out; echo err >&2; exit 3"), time.Minute)
		if err != nil || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" || r.Exit.Code != 3 {
			t.Errorf("got %+v, %v", r, err)
		}

		r, err = n.server.ExecSync(t.Context(), "c", sh("kill -9 $$"), 0)
		if err != nil || r.Exit.Code != 137 {
			t.Errorf("got %+v, %v, want 137", r, err)
		}

		if _, err = n.server.ExecSync(t.Context(), "c", []string{"/bin/absent"}, 0); err == nil ||
			!strings.Contains(err.Error(), "absent") {
			t.Errorf("error %v does not name the program", err)
		}

		r, err = n.server.ExecSync(t.Context(), "c", sh("sleep 1000 & echo started"), time.Minute)
		if err != nil || string(r.Stdout) != "started\n" {
			t.Errorf("a process left behind: got %+v, %v", r, err)
		}
	})
}

func TestExecSyncTimeoutKillsTheTree(t *testing.T) {
	n := start(t, "crun", idle, nil)
	_, err := n.server.ExecSync(
		t.Context(),
		"c",
		sh("sh -c 'sleep 4242 & sleep 4242; true' ; true"),
		300*time.Millisecond,
	)
	if !errors.Is(err, streaming.ErrTimeout) {
		t.Errorf("error %v, want a timeout", err)
	}

	monitortest.Eventually(t, func() error {
		r, err := n.server.ExecSync(t.Context(), "c", sh("ps | grep -c '[s]leep 4242'"), time.Minute)
		if err == nil && strings.TrimSpace(string(r.Stdout)) != "0" {
			err = fmt.Errorf("still running: %s", r.Stdout)
		}
		return err
	})
}

func TestExecSyncOutputIsCapped(t *testing.T) {
	n := start(t, "crun", idle, nil)
	r, err := n.server.ExecSync(
		t.Context(),
		"c",
		sh("head -c 12000000 /dev/zero; head -c 12000000 /dev/zero >&2"),
		time.Minute,
	)
	if err != nil || len(r.Stdout) != 12_000_000 || len(r.Stdout)+len(r.Stderr) != streaming.MaxOutput {
		t.Errorf("got %d and %d bytes, %v", len(r.Stdout), len(r.Stderr), err)
	}
}
