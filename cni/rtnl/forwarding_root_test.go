package rtnl_test

import (
	"testing"

	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/rtnl/rtnltest"
	"github.com/trivet-node/trivet/cni/sysctl"
)

func TestForwardingIsWhatTheSettingSays(t *testing.T) {
	rtnltest.Host(t, func(c *rtnl.Conn) error {
		for name, is6 := range map[string]bool{
			"net/ipv4/ip_forward":          false,
			"net/ipv6/conf/all/forwarding": true,
		} {
			for value, want := range map[string]bool{"0": false, "1": true} {
				if err := sysctl.Set(name, value); err != nil {
					return err
				}
				if got, err := c.Forwards(is6); got != want || err != nil {
					t.Errorf("%s is %s, and it says %v, %v", name, value, got, err)
				}
			}
		}
		return nil
	})
}
