package diskusage

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// What the whole package rests on: nobody writes without using CPU time of his control group, however little.
func TestSmallestWriteOfAProcessIsSeenByTheTimeOfItsGroup(t *testing.T) {
	testenv.Root(t)
	host, err := cgroup.Open()
	must(t, err)
	group := "/" + filepath.Base(testenv.ShortDir(t))
	must(t, host.Create(group))
	t.Cleanup(func() { must(t, host.Remove(context.WithoutCancel(t.Context()), group)) })

	// Nobody else writes to this file system, where that could hide a write.
	dir := testenv.ShortDir(t)
	must(t, mount.Tmpfs(dir, "mode=0700"))
	t.Cleanup(func() { must(t, mount.Unmount(dir)) })

	shell := exec.CommandContext(t.Context(), "sh", "-c", `while read -r name; do : > "$name"; echo; done`)
	shell.Dir = dir
	in, err := shell.StdinPipe()
	must(t, err)
	out, err := shell.StdoutPipe()
	must(t, err, shell.Start(), host.Add(group, shell.Process.Pid))
	defer shell.Wait()
	defer in.Close()

	m := newMeter(t)
	for i := range 50 {
		before, err := host.CPUTime(group)
		must(t, err)
		_, err = fmt.Fprintln(in, i)
		must(t, err)
		_, err = out.Read(make([]byte, 1))
		must(t, err)

		// The kernel adds it when the process sleeps again.
		now := before
		for range retry.Every(t.Context(), time.Millisecond) {
			if now, err = host.CPUTime(group); err != nil || now != before {
				break
			}
		}

		must(t, err)
		tree := Tree{Dirs: []string{dir}, Activity: int64(now)}
		if got := m.Measure(t.Context(), "a", tree); got.Inodes != uint64(i+2) {
			t.Errorf("after %d files: %+v", i+1, got)
		}
		m.age("a", time.Minute)
	}
}
