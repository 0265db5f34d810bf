package rtnl_test

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/rtnl/rtnltest"
)

// More than one batch; the ends that go with the others are listed, too.
func TestAllInterfacesOfAListAreDeleted(t *testing.T) {
	rtnltest.Host(t, func(c *rtnl.Conn) error {
		const pairs = 70
		for i := range pairs {
			v := rtnl.Veth{
				Name:     fmt.Sprintf("a%d", i),
				MAC:      net.HardwareAddr{2, 0, 0, 0, 0, byte(i)},
				PeerName: fmt.Sprintf("b%d", i),
				PeerMAC:  net.HardwareAddr{2, 0, 0, 0, 1, byte(i)},
			}
			if err := c.Must(rtnl.NewVeth(v)); err != nil {
				return err
			}
		}

		links, err := c.Links()
		if err != nil {
			return err
		}
		stays := slices.IndexFunc(links, func(l rtnl.Link) bool { return l.Name == "a7" })
		due := slices.DeleteFunc(slices.Delete(slices.Clone(links), stays, stays+1),
			func(l rtnl.Link) bool { return l.Name == "lo" || l.Name == "b7" })
		if err := c.DeleteAll(due); err != nil {
			return err
		}
		if err := c.DeleteAll(due); err != nil {
			t.Error("again:", err)
		}

		links, err = c.Links()
		if len(links) != 3 {
			t.Errorf("left: %+v", links)
		}
		return err
	})
}
