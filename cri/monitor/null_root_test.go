package monitor_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
)

// A process that holds the host's /dev/null open as its owner, or as root, can take it away from everybody
// on the node: chmod 0 /proc/self/fd/0.
func TestNoProcessOfAContainerHoldsTheHostsNullDevice(t *testing.T) {
	var host unix.Stat_t
	if err := unix.Stat(os.DevNull, &host); err != nil {
		t.Fatal(err)
	}

	const describe = "stat -L -c '%d %t:%T %a' /proc/self/fd/0; echo >&0 && cat && readlink /proc/self/fd/0"
	const want = "1:3 666\n/dev/null\n"
	runtimes(t, func(t *testing.T, name string) {
		for _, uid := range []uint32{0, 1000} {
			e, c := setup(t)
			change := func(s *specs.Spec, _ *monitor.Container) { s.Process.User.UID = uid }
			started := e.Container(t, "null", e.Runtime(t, name), sh(describe+"; exec sleep 1000"), change)
			run(t, c, started)
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()

			ex, err := c.Exec(t.Context(), monitor.ExecConfig{
				ID:     "null",
				Stdout: write,
				Process: specs.Process{
					User: specs.User{UID: uid},
					Args: sh(describe),
					Cwd:  "/",
					Env:  []string{"PATH=/bin"},
				},
			})

			write.Close()
			if err != nil {
				t.Fatal(err)
			}
			defer ex.Close()

			text, err := io.ReadAll(read)
			if err != nil {
				t.Fatal(err)
			}

			device, rest, _ := strings.Cut(string(text), " ")
			if device == fmt.Sprint(host.Dev) || rest != want {
				t.Errorf("exec of user %d has %q, want a device that is not in file system %d, and %q",
					uid, text, host.Dev, want)
			}

			monitortest.Eventually(t, func() error {
				got := monitortest.LogText(t, started.LogPath, "stdout")
				if device, _, whole := strings.Cut(got, " 1:3 "); !whole || device == fmt.Sprint(host.Dev) {
					return fmt.Errorf("container of user %d has %q", uid, got)
				}

				return nil
			})
		}
	})
}
