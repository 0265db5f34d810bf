package cgroup

import (
	"errors"
	"io/fs"
	"testing"
	"time"
)

func TestCPUTimeIsTheSameOnBothVersions(t *testing.T) {
	for name, h := range map[string]*Host{"v1": legacyTree(t), "v2": unifiedTree(t)} {
		if got, err := h.CPUTime("/g"); err != nil || got != 1500*time.Millisecond {
			t.Errorf("%s: %s, %v; want 1.5s", name, got, err)
		}
		if _, err := h.CPUTime("/gone"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v of a group that is gone", name, err)
		}
	}
}
