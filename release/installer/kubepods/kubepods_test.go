package kubepods

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestGroupsOfPodsAreThoseOfThisMachine(t *testing.T) {
	for _, c := range []struct {
		path, machine string
		want          bool
	}{
		{"/kubepods/burstable/podu/app", "/", true},
		{"/kubepods.slice/kubepods-podu.slice/cri-app.scope", "/init.scope", true},
		{"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podu.slice", "/init.scope", true},
		{"/docker/abc/kubelet/kubepods/podu", "/docker/abc/init.scope", true},
		{"/docker/abc/kubelet/kubepods/podu", "/docker/abc", true},
		{"/system.slice/containerd.service", "/init.scope", false},
		{"/user.slice/kubepods-like.scope", "/", false},

		// A node in a container of this machine, and a machine that is a pod itself.
		{"/docker/abc/kubelet/kubepods/podu", "/", false},
		{"/system.slice/docker-abc.scope/kubelet.slice/kubelet-kubepods.slice", "/init.scope", false},
		{"/kubepods/podu/machine/system.slice/ssh.service", "/kubepods/podu/machine", false},
	} {
		if got := (Group{}).isBelow(c.path, c.machine); got != c.want {
			t.Errorf("%s on %s: %t, want %t", c.path, c.machine, got, c.want)
		}
	}
}

// newGroup makes a group of a name of its own, in which only the test's processes are.
func newGroup(t *testing.T) (Group, string) {
	t.Helper()
	own, err := groups(1)
	if err != nil {
		t.Fatal(err)
	}

	g := Group{Name: fmt.Sprintf("trivet-test-%d", os.Getpid())}
	for hierarchy, path := range own {
		_, controllers, _ := strings.Cut(hierarchy, ":")
		controllers = strings.TrimPrefix(controllers, "name=")
		above := filepath.Join("/sys/fs/cgroup", controllers, strings.TrimSuffix(path, "/init.scope"))
		dir := filepath.Join(above, g.Name)
		if _, err := os.Stat(filepath.Join(above, "cgroup.procs")); err != nil {
			continue
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue
		}

		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		if controllers != "cpuset" {
			return g, dir
		}
	}
	t.Skip("no control group can be made here")
	return g, ""
}

func TestAllProcessesOfPodsAreKilled(t *testing.T) {
	g, dir := newGroup(t)
	var want []int
	for range 3 {
		cmd := exec.Command("sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		reaped := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(reaped)
		}()
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			<-reaped
		})

		pid := cmd.Process.Pid
		err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
		if err != nil {
			t.Skipf("no process can be moved: %v", err)
		}
		want = append(want, pid)
	}

	pids, err := g.Processes()
	slices.Sort(want)
	slices.Sort(pids)
	if err != nil || !slices.Equal(pids, want) {
		t.Errorf("processes %d, want %d, %v", pids, want, err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 {
		if err := g.Kill(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if pids, err := g.Processes(); err != nil || len(pids) > 0 {
		t.Errorf("processes %d are left, %v", pids, err)
	}
}
