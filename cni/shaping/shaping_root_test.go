package shaping

import (
	"testing"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// An interface of another kind stands for the ifb, which not all kernels have.
func TestRemoveLeavesTheDeviceOfAnotherAttachment(t *testing.T) {
	testenv.Root(t)
	own := ipam.Owner{ContainerID: "abc", IfName: "eth0"}
	other := ipam.Owner{ContainerID: "abc", IfName: "net1"}
	err := namespace.Do(func() error {
		host, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = host.Close() }()

		for alias, stays := range map[string]bool{
			"":                                 false,
			aliasPrefix("n") + own.Label():     false,
			aliasPrefix("n") + other.Label():   true,
			aliasPrefix("two") + other.Label(): true,
		} {
			name := deviceName("n", own.ContainerID)
			err := host.Must(rtnl.NewVeth(rtnl.Veth{
				Name:     name,
				MAC:      macOf("a"),
				PeerName: "peer",
				PeerMAC:  macOf("b"),
			}))
			if err == nil && alias != "" {
				err = host.Must(rtnl.SetAlias(name, alias))
			}
			if err != nil {
				return err
			}

			// There is nothing the second time.
			for range 2 {
				if err := Remove(host, "n", own); err != nil {
					return err
				}
			}

			if _, err := host.LinkByName(name); netlink.IsNotExist(err) == stays {
				t.Errorf("alias %q: %v", alias, err)
			}
			if err := host.EnsureNoLink(name); err != nil {
				return err
			}
		}

		return nil
	}, testenv.Netns(t))
	if err != nil {
		t.Error(err)
	}
}
