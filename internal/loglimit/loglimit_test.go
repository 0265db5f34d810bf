package loglimit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// written returns a logger and what it has written: its lines without their times.
func written() (log *slog.Logger, limit *Handler, lines func() []string) {
	var out bytes.Buffer
	limit = New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		},
	}))

	return slog.New(limit), limit, func() []string {
		defer out.Reset()
		return strings.Split(strings.TrimSpace(out.String()), "\n")
	}
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhatFailsEachSecondIsOneLineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, limit, lines := written()
		down := errors.New("connection refused")
		fail := func(took time.Duration) {
			log.Warn("report status", "pod", "default/web", "err", down, "took", took)
		}

		fail(0)
		time.Sleep(time.Second / 2)
		for second := range 120 {
			fail(time.Duration(second) * time.Second)
			time.Sleep(time.Second)
		}

		equal(t, lines(),
			`level=WARN msg="report status" pod=default/web err="connection refused" took=0s`,
			`level=WARN msg="report status" pod=default/web err="connection refused" took=59s repeated=60`,
			`level=WARN msg="report status" pod=default/web err="connection refused" took=1m59s repeated=60`,
		)

		// The last is written, however long nothing happens after it, and nothing is kept.
		fail(time.Hour)
		time.Sleep(2 * interval)
		synctest.Wait()
		equal(t, lines(),
			`level=WARN msg="report status" pod=default/web err="connection refused" took=1h0m0s repeated=1`)
		if len(limit.recent.messages) > 0 {
			t.Errorf("%v are kept", limit.recent.messages)
		}
	})
}

func TestWhatDiffersIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _, lines := written()
		for range 2 {
			log.Debug("look", "pod", "a")
			log.Info("ready", "pod", "a")
			log.Warn("step failed", "pod", "a")
			log.Error("step failed", "pod", "b")
			log.With("pod", "a").Error("step failed", "step", 1)
			log.WithGroup("g").Error("step failed", "pod", "b")
		}

		equal(t, lines(),
			"level=DEBUG msg=look pod=a",
			"level=INFO msg=ready pod=a",
			`level=WARN msg="step failed" pod=a`,
			`level=ERROR msg="step failed" pod=b`,
			`level=ERROR msg="step failed" pod=a step=1`,
			`level=ERROR msg="step failed" g.pod=b`,
			"level=DEBUG msg=look pod=a",
			"level=INFO msg=ready pod=a",
		)
	})
}

func TestNothingIsHeldBackWhenTheProgramEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, limit, lines := written()
		for _, pod := range []string{"a", "b", "a", "b", "a"} {
			log.With("pod", pod).Warn("step failed")
			time.Sleep(time.Second)
		}
		lines()

		limit.Flush(t.Context())
		equal(t, lines(),
			`level=WARN msg="step failed" pod=b repeated=1`,
			`level=WARN msg="step failed" pod=a repeated=2`,
		)

		// Once.
		limit.Flush(t.Context())
		time.Sleep(interval)
		synctest.Wait()
		equal(t, lines(), "")
	})
}

// A caller who can choose what differs cannot fill the log.
func TestSoManyDifferentLinesAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, limit, lines := written()
		for user := range 10_000 {
			log.Warn("a call could not be authorized", "user", fmt.Sprint("mallory", user))
		}
		log.Warn("report status", "pod", "default/web")
		if n := len(lines()); n != most+2 {
			t.Errorf("%d lines", n)
		}
		if n := len(limit.recent.messages["a call could not be authorized"]); n != most+1 {
			t.Errorf("%d lines are kept", n)
		}

		time.Sleep(interval)
		synctest.Wait()
		equal(t, lines(), fmt.Sprintf(
			`level=WARN msg="a call could not be authorized" user=mallory9999 repeated=%d`, 10_000-most-1))
	})
}
