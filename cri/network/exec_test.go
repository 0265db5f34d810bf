package network

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/trace/tracetest"
)

// stepping is a plugin that writes a step when it is asked for its steps, and lines that are none.
const stepping = `#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}' ;;
ADD) [ -z "$TRIVET_STEPS" ] || printf 'x\n1000 3000 attach %s\n' "$TRACEPARENT" >>$TRIVET_STEPS
	echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.3/24"}]}' ;;
esac
`

func TestStepsOfAPluginAreSpansBelowItsRun(t *testing.T) {
	f := open(t)
	f.write("bin/test", stepping, 0o755)
	f.ready()

	provider, sent := tracetest.New(t)
	root := provider.Root("pod start", time.Now())
	if _, err := f.Setup(root.Under(t.Context()), Attachment{
		ID:    "a",
		Netns: "/proc/self/ns/net",
	}); err != nil {
		t.Fatal(err)
	}

	root.End(nil)
	spans := sent()
	if len(spans) < 3 {
		t.Fatalf("%+v", spans)
	}

	step := spans[0]
	parent, isStep := strings.CutPrefix(step.Name, "attach ")
	if !isStep || step.Ended.Sub(step.Began) != 2*time.Microsecond || !strings.Contains(parent, step.Parent) {
		t.Errorf("step %+v", step)
	}

	for _, s := range spans[1:] {
		if s.ID == step.Parent && s.Name != "CNI test" {
			t.Errorf("the step is below %+v", s)
		}
	}
}

func TestAPluginThatIsNotTracedIsNotAskedForSteps(t *testing.T) {
	f := open(t)
	f.write("bin/test",
		strings.Replace(stepping, `[ -z "$TRIVET_STEPS" ]`, `[ -z "$TRACEPARENT" ]`, 1), 0o755)
	f.ready()
	got, err := f.Setup(t.Context(), Attachment{ID: "a", Netns: "/proc/self/ns/net"})
	if err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

// calling is a plugin that calls another one, as flannel does. What that one is, is in the file PID.
const calling = `#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}' ;;
DEL) sleep 60 &
	echo $! >PID
	wait ;;
esac
`

func TestAPluginThatIsGivenUpEndsWithTheOneThatItCalls(t *testing.T) {
	f := open(t)
	f.write("bin/test", strings.ReplaceAll(calling, "PID", f.path("pid")), 0o755)
	f.ready()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for range retry.Every(ctx, time.Millisecond) {
			if pid, err := os.ReadFile(f.path("pid")); err == nil && len(pid) > 0 {
				cancel()
			}
		}
	}()

	began := time.Now()
	err := f.Teardown(ctx, Attachment{ID: "a"})
	if took := time.Since(began); err == nil || took > 50*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
}

func TestAPluginThatIsBeingWrittenIsWaitedFor(t *testing.T) {
	plugin := filepath.Join(t.TempDir(), "test")
	busy, err := os.OpenFile(plugin, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := busy.WriteString("#!/bin/sh\necho done\n"); err != nil {
		t.Fatal(err)
	}

	if _, err := runOnce(t.Context(), plugin, nil, nil); !errors.Is(err, unix.ETXTBSY) {
		t.Errorf("while it is written: %v", err)
	}

	time.AfterFunc(busyPause, func() { busy.Close() })
	if out, err := run(t.Context(), plugin, nil, nil); err != nil || string(out) != "done\n" {
		t.Errorf("%q, %v", out, err)
	}
}
