package bridge

import (
	"fmt"
	"testing"

	"github.com/trivet-node/trivet/cni/rtnl"
)

func TestPortIsInItsVLANsAndOneIsNative(t *testing.T) {
	trunk := []rtnl.VLAN{{First: 3, Last: 7}}
	for _, c := range []struct {
		vlans VLANs
		want  string
		link  string
	}{
		{VLANs{}, "", "br0"},
		{VLANs{ID: 100}, "[{100 100 true}]", "br0.100"},
		{VLANs{ID: 100, Trunk: trunk}, "[{100 100 true} {3 7 false}]", "br0.100"},
		{VLANs{Trunk: trunk}, "[{3 7 false} {1 1 true}]", "br0"},
	} {
		config := Config{Name: "br0", VLANs: c.vlans}
		if got := config.GatewayLink(); got != c.link {
			t.Errorf("%+v: the gateway is on %s", c.vlans, got)
		}
		if c.vlans.Wanted() != (c.want != "") {
			t.Errorf("%+v: %v", c.vlans, c.vlans.Wanted())
		}
		if got := fmt.Sprint(c.vlans.ofPort()); c.want != "" && got != c.want {
			t.Errorf("%+v: %s", c.vlans, got)
		}
	}
}
