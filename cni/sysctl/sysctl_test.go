package sysctl_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/sysctl"
)

func TestGetReadsASettingOrNothing(t *testing.T) {
	if got := sysctl.Get("kernel/ostype"); got != "Linux" {
		t.Errorf("%q", got)
	}
	if got := sysctl.Get("kernel/no-such-setting"); got != "" {
		t.Errorf("%q", got)
	}
}

func TestASettingThatTheKernelDoesNotHaveIsAnErrorOnlyForSet(t *testing.T) {
	const name = "kernel/no-such-setting"
	err := sysctl.Set(name, "1")
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), name) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(sysctl.SetIfPresent(name, "1"), sysctl.EnsureIfPresent(name, "1")); err != nil {
		t.Error(err)
	}
}

func TestASettingThatHasTheValueIsNotWritten(t *testing.T) {
	// Nobody may write this one, root included.
	if err := sysctl.EnsureIfPresent("kernel/ostype", "Linux"); err != nil {
		t.Error(err)
	}
	if err := sysctl.SetIfPresent("kernel/ostype", "Linux"); err == nil {
		t.Error("a setting that cannot be written was written")
	}
}

func TestSettingsThatTheKernelDoesNotHaveArePassedOver(t *testing.T) {
	err := sysctl.SetIPIfPresent([]sysctl.Setting{
		{Name: "net/ipv4/no-such-setting", Value: "1"},
		{Name: "net/ipv9/no-such-family", Value: "1"},
		{Name: "net/ipv6/no-such-setting", Value: "1"},
	})
	if err != nil {
		t.Error(err)
	}

	// A directory is there and cannot be written.
	err = sysctl.SetIPIfPresent([]sysctl.Setting{{Name: "net/ipv4/conf", Value: "1"}})
	if err == nil || !strings.Contains(err.Error(), "net/ipv4/conf") {
		t.Errorf("%v", err)
	}
}
