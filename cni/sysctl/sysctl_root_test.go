package sysctl_test

import (
	"testing"

	"github.com/trivet-node/trivet/cni/sysctl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestSettingsOfBothFamiliesAreWritten(t *testing.T) {
	testenv.Root(t)
	names := []string{
		"net/ipv4/conf/lo/accept_redirects",
		"net/ipv4/no-such-setting",
		"net/ipv4/conf/lo/arp_notify",
		"net/ipv6/conf/lo/accept_ra",
		"net/ipv6/conf/lo/accept_redirects",
		"net/ipv4/conf/lo/arp_ignore",
	}
	err := namespace.Do(func() error {
		// Whatever they are at first, they are another value once.
		for _, value := range []string{"1", "0"} {
			var settings []sysctl.Setting
			for _, name := range names {
				settings = append(settings, sysctl.Setting{Name: name, Value: value})
			}
			if err := sysctl.SetIPIfPresent(settings); err != nil {
				return err
			}

			for _, name := range names {
				if got := sysctl.Get(name); got != value && got != "" {
					t.Errorf("%s is %s, want %s", name, got, value)
				}
			}
		}
		return nil
	}, testenv.Netns(t))
	if err != nil {
		t.Error(err)
	}
}
