package cgroupdriver_test

import (
	"errors"
	"maps"
	"testing"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/systemd"
)

func TestContainersGoBelowTheirPods(t *testing.T) {
	cgroupfs, systemd := cgroupdriver.Driver{}, cgroupdriver.Driver{Systemd: true}
	cases := []struct {
		driver     cgroupdriver.Driver
		parent, id string
		path, dir  string
	}{
		{
			driver: cgroupfs,
			parent: "/kubepods/burstable/pod1",
			id:     "c",
			path:   "/kubepods/burstable/pod1/c",
			dir:    "/kubepods/burstable/pod1/c",
		},
		{
			driver: cgroupfs,
			id:     "c",
			path:   "/trivet/c",
			dir:    "/trivet/c",
		},
		{
			driver: cgroupfs,
			parent: "/kubepods/pod1",
			path:   "/kubepods/pod1",
			dir:    "/kubepods/pod1",
		},
		{
			driver: systemd,
			parent: "kubepods-burstable-pod1.slice",
			id:     "c",
			path:   "kubepods-burstable-pod1.slice:trivet:c",
			dir:    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/trivet-c.scope",
		},
		{
			driver: systemd,
			parent: "kubelet-kubepods-pod1.slice",
			id:     "c",
			path:   "kubelet-kubepods-pod1.slice:trivet:c",
			dir:    "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/trivet-c.scope",
		},
		{
			driver: systemd,
			id:     "c",
			path:   "system.slice:trivet:c",
			dir:    "/system.slice/trivet-c.scope",
		},
	}

	for _, c := range cases {
		if got := c.driver.Path(c.parent, c.id); got != c.path {
			t.Errorf("%+v: cgroupsPath %s", c, got)
		}
		if got := c.driver.Dir(c.parent, c.id); got != c.dir {
			t.Errorf("%+v: directory %s", c, got)
		}
		if err := c.driver.Check(c.parent); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestParentsOfTheOtherDriverAreRefused(t *testing.T) {
	for parent, driver := range map[string]cgroupdriver.Driver{
		"/kubepods/burstable/pod1":      {Systemd: true},
		"kubepods--pod1.slice":          {Systemd: true},
		"kubepods-burstable-pod1.slice": {},
	} {
		if err := driver.Check(parent); err == nil {
			t.Errorf("%s is accepted by %+v", parent, driver)
		}
	}
}

func TestSystemdIsRefusedWhereItDoesNotRun(t *testing.T) {
	_, err := cgroupdriver.New("systemd")
	if cant, ok := errors.AsType[*program.CantRunError](err); ok == systemd.Running() {
		t.Errorf("systemd runs %v: %v", systemd.Running(), cant)
	}
	if d, err := cgroupdriver.New("cgroupfs"); err != nil || d.Systemd {
		t.Errorf("cgroupfs: %+v, %v", d, err)
	}
}

func TestAnnotationsAreForSystemdOnly(t *testing.T) {
	if got := (cgroupdriver.Driver{}).Annotations(map[string]string{"memory.min": "4096"}); len(got) != 0 {
		t.Errorf("annotations with cgroupfs: %v", got)
	}
	if got := (cgroupdriver.Driver{Systemd: true}).Annotations(nil); len(got) != 1 {
		t.Errorf("annotations with systemd: %v", got)
	}
}

// The values come from the caller of the server, and go to a parser of the OCI runtime.
func TestScopeIsAskedToProtectMemory(t *testing.T) {
	const property = "org.systemd.property."
	for _, c := range []struct{ low, want string }{
		{"8192", "uint64 8192"},
		{"0", ""},
		{"max", ""},
		{"1'], 'Delegate': [true", ""},
	} {
		got := cgroupdriver.Driver{Systemd: true}.Annotations(map[string]string{
			"memory.min":  "4096",
			"memory.low":  c.low,
			"memory.high": "16384",
		})

		want := map[string]string{
			property + "CollectMode": "'inactive-or-failed'",
			property + "MemoryMin":   "uint64 4096",
		}
		if c.want != "" {
			want[property+"MemoryLow"] = c.want
		}
		if !maps.Equal(got, want) {
			t.Errorf("memory.low %q: %v", c.low, got)
		}
	}
}

func TestWithoutSystemdThereAreNoScopes(t *testing.T) {
	d := cgroupdriver.Driver{}
	if err := d.RemoveScope(t.Context(), "c"); err != nil {
		t.Error(err)
	}

	unknown := func(string) bool { t.Error("a scope was looked at"); return false }
	if err := d.ResetFailedScopes(t.Context(), unknown); err != nil {
		t.Error(err)
	}
}
