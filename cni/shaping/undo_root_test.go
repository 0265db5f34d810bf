package shaping

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/rtnl/rtnltest"
	"github.com/trivet-node/trivet/cni/sourceguard"
	"github.com/trivet-node/trivet/internal/undo"
)

// The kernel takes no bucket without a burst.
var (
	good    = Limit{Rate: 8_000_000, Burst: 8_000_000}
	refused = Limit{Rate: 8_000_000, Burst: 1}
)

func podOf(ifname string, ingress, egress Limit) Pod {
	return Pod{
		Network: "n",
		Owner:   ipam.Owner{ContainerID: "abc", IfName: ifname},
		Ingress: ingress,
		Egress:  egress,
	}
}

// limit is Ensure, undone as a plugin does that fails.
func (p Pod) limit(host *rtnl.Conn, veth rtnl.Link) (err error) {
	var back undo.Stack
	defer back.Unwind(context.Background(), &err)
	_, err = p.Ensure(host, veth, &back)
	return err
}

// isUnlimited returns an error if something of a limit is there.
func isUnlimited(host *rtnl.Conn, veth rtnl.Link) error {
	_, limited, err := host.TokenBucketOf(veth.Index)
	redirected, listErr := host.HasRedirect(veth.Index)
	if limited || redirected {
		err = errors.Join(err, errors.New("what it has added is left"))
	}
	if _, lookErr := host.LinkByName(deviceName("n", "abc")); !netlink.IsNotExist(lookErr) {
		err = errors.Join(err, errors.New("its ifb is left"))
	}
	return errors.Join(err, listErr)
}

// What a plugin takes away of those before it in the chain is missed for as long as the container is there.
func TestALimitThatIsRefusedTakesAwayOnlyItsOwn(t *testing.T) {
	guard := sourceguard.Guard{
		MAC:       net.HardwareAddr{2, 0, 0, 0, 0, 2},
		Addresses: []netip.Addr{netip.MustParseAddr("10.88.0.2")},
	}

	for name, p := range map[string]Pod{
		"received": podOf("eth0", refused, good),
		"sent":     podOf("eth0", good, refused),
	} {
		t.Run(name, func(t *testing.T) {
			rtnltest.Link(t, func(host *rtnl.Conn, veth rtnl.Link) error {
				if p.limit(host, veth) == nil {
					t.Error("the kernel takes any limit")
				}
				if err := isUnlimited(host, veth); err != nil {
					t.Error(err)
				}

				// There is no discipline, or else this would say so.
				err := host.Must(rtnl.NewIngress(veth.Index, rtnl.Both), rtnl.DeleteIngress(veth.Index))
				if err != nil {
					t.Error(err)
				}

				err = guard.Ensure(host, veth.Index)
				if p.limit(host, veth) == nil {
					t.Error("the kernel takes any limit beside a guard")
				}
				return errors.Join(err, guard.Check(host, veth), isUnlimited(host, veth))
			})
		})
	}
}

// The ifb is the container's, whichever interface it is for.
func TestALimitThatIsRefusedLeavesThatOfAnotherAttachment(t *testing.T) {
	rtnltest.Link(t, func(host *rtnl.Conn, veth rtnl.Link) error {
		first := podOf("eth0", good, good)
		if err := first.limit(host, veth); err != nil {
			return err
		}
		for _, ifname := range []string{"net1", "eth0"} {
			if podOf(ifname, Limit{}, good).limit(host, veth) == nil {
				t.Errorf("%s: there are two limits of what one container sends", ifname)
			}
		}

		device, err := host.LinkByName(deviceName("n", "abc"))
		if want := aliasPrefix("n") + first.Owner.Label(); err == nil && device.Alias != want {
			t.Errorf("the alias is %q, want %q", device.Alias, want)
		}
		return errors.Join(err, first.Check(host, veth))
	})
}
