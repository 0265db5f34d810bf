package cgroupdriver_test

import (
	"errors"
	"testing"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/systemd"
)

func TestContainersGoBelowTheirPods(t *testing.T) {
	for _, c := range []struct {
		systemd    bool
		parent, id string
		oci, group string
	}{
		{false, "/kubepods/burstable/pod1", "c", "/kubepods/burstable/pod1/c", "/kubepods/burstable/pod1/c"},
		{false, "", "c", "/trivet/c", "/trivet/c"},
		{false, "/kubepods/pod1", "", "/kubepods/pod1", "/kubepods/pod1"},
		{true, "kubepods-burstable-pod1.slice", "c", "kubepods-burstable-pod1.slice:trivet:c",
			"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/trivet-c.scope"},
		{true, "kubelet-kubepods-pod1.slice", "c", "kubelet-kubepods-pod1.slice:trivet:c",
			"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/trivet-c.scope"},
		{true, "", "c", "system.slice:trivet:c", "/system.slice/trivet-c.scope"},
	} {
		d := cgroupdriver.Driver{Systemd: c.systemd}
		if got := d.OCI(c.parent, c.id); got != c.oci {
			t.Errorf("%+v: cgroupsPath %s", c, got)
		}
		if got := d.Group(c.parent, c.id); got != c.group {
			t.Errorf("%+v: group %s", c, got)
		}
		if err := d.Check(c.parent); err != nil {
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
			t.Errorf("%s is taken by %+v", parent, driver)
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
	if got := (cgroupdriver.Driver{}).Annotations(); len(got) != 0 {
		t.Errorf("annotations with cgroupfs: %v", got)
	}
	if got := (cgroupdriver.Driver{Systemd: true}).Annotations(); len(got) != 1 {
		t.Errorf("annotations with systemd: %v", got)
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
