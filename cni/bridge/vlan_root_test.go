package bridge

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/rtnl/rtnltest"
)

// inVLAN is the configuration of a network in a VLAN, with its bridge.
func inVLAN(host *rtnl.Conn) (c Config, bridge rtnl.Link, err error) {
	c = Config{
		Network:   "test",
		Name:      "br0",
		IsGateway: true,
		VLANs:     VLANs{ID: 100},
	}
	bridge, err = create(host, c, nil)
	return c, bridge, err
}

func TestAGatewayThatIsDownOrOutsideOfItsVLANFailsCheck(t *testing.T) {
	rtnltest.Host(t, func(host *rtnl.Conn) error {
		c, bridge, err := inVLAN(host)
		if err != nil {
			return err
		}

		link, err := makeGatewayLink(host, c, bridge)
		if err != nil {
			return err
		}
		if err := checkGatewayLink(host, c, nil); err == nil || !strings.Contains(err.Error(), "down") {
			t.Error(err)
		}

		if err := host.Must(rtnl.SetUp(link.Index)); err != nil {
			return err
		}
		if err := checkGatewayLink(host, c, nil); err == nil || !strings.Contains(err.Error(), "VLAN 100") {
			t.Error(err)
		}

		return nil
	})
}

// A kernel without VLANs on bridges refuses them: what the call has made goes then, and nothing else.
func TestTheGatewayOfAVLANIsCompletedOrRemoved(t *testing.T) {
	rtnltest.Host(t, func(host *rtnl.Conn) error {
		c, bridge, err := inVLAN(host)
		if err != nil {
			return err
		}

		_, err = ensureGatewayLink(host, c, bridge)
		if errors.Is(err, unix.EOPNOTSUPP) {
			if _, err := host.LinkByName(c.GatewayLink()); !netlink.IsNotExist(err) {
				t.Errorf("an interface is left: %v", err)
			}

			// As a killed call has left it.
			if _, err := makeGatewayLink(host, c, bridge); err != nil {
				return err
			}
			if _, err := ensureGatewayLink(host, c, bridge); !errors.Is(err, unix.EOPNOTSUPP) {
				t.Errorf("what is there is taken as it is: %v", err)
			}

			_, err = host.LinkByName(c.GatewayLink())
			return err
		}
		if err != nil {
			return err
		}

		// As a killed call has left it.
		if err := host.EnsureNoLink(c.GatewayLink()); err != nil {
			return err
		}
		if _, err := makeGatewayLink(host, c, bridge); err != nil {
			return err
		}
		if _, err := ensureGatewayLink(host, c, bridge); err != nil {
			return err
		}

		return checkGatewayLink(host, c, nil)
	})
}
