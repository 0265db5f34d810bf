package projectquota_test

import (
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestWhatADiskLacksIsNamed(t *testing.T) {
	for _, c := range []struct {
		state   projectquota.State
		why, do string // parts of what is said
	}{
		{projectquota.State{FileSystem: "xfs", Kernel: true, Holds: true}, "", ""},
		{projectquota.State{}, "file system has no project quotas", "ext4 and xfs"},
		{projectquota.State{FileSystem: "xfs"}, "kernel has no quotas of xfs", "CONFIG_XFS_QUOTA"},
		{projectquota.State{FileSystem: "xfs", Kernel: true}, "mounted without", "rootflags=prjquota"},
		{projectquota.State{FileSystem: "ext4", Kernel: true}, "no feature project", "tune2fs"},
		{projectquota.State{FileSystem: "ext4", Kernel: true, Counts: true}, "no limits", "prjquota"},
	} {
		why, do := c.state.Lack()
		if (why == "") != (c.why == "") || !strings.Contains(why, c.why) || !strings.Contains(do, c.do) {
			t.Errorf("%+v: %q; %q", c.state, why, do)
		}
	}
}

func TestFileSystemsThatKnowNoProjectsAreNamed(t *testing.T) {
	state, err := projectquota.StateOf(testenv.MemoryDir(t))
	if err != nil || state.Holds || state.Counts {
		t.Errorf("%+v, %v", state, err)
	}
	if _, err := projectquota.StateOf("/none"); err == nil {
		t.Error("a directory that is not there has a state")
	}
}
