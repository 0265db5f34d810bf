package rtnl

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Condemned is the group (ip link show group 29047) of interfaces that somebody is deleting.
const Condemned = 29047

// batch is how many interfaces are deleted at once. The buffer of a socket has room for as many refusals.
const batch = 100

// DeleteAll deletes interfaces, by their indexes: a name may have been given to another one meanwhile. It
// deletes them as a group, so that the kernel waits for its RCU callbacks once (16 to 30 ms) and not for
// each. Those that are gone are success.
func (c *Conn) DeleteAll(links []Link) error {
	for some := range slices.Chunk(links, batch) {
		var messages []*netlink.Message
		for _, l := range some {
			messages = append(messages, setGroup(l, Condemned))
		}

		errs, err := c.Do(messages...)
		if err != nil {
			return err
		}
		for _, err := range errs {
			if err != nil && !netlink.IsNotExist(err) {
				return err
			}
		}

		// None is there when they have gone by themselves.
		if err := c.Must(deleteGroup(Condemned)); err != nil && !netlink.IsNotExist(err) {
			return err
		}
	}

	return nil
}

func setGroup(l Link, group uint32) *netlink.Message {
	op := fmt.Sprintf("set group of interface %s to %d", l.Name, group)
	return netlink.NewMessage(op, unix.RTM_NEWLINK, 0, ifinfo(l.Index, 0, 0)).Uint32(unix.IFLA_GROUP, group)
}

// deleteGroup deletes all interfaces of a group.
func deleteGroup(group uint32) *netlink.Message {
	op := fmt.Sprintf("delete interfaces of group %d", group)
	return netlink.NewMessage(op, unix.RTM_DELLINK, 0, ifinfo(0, 0, 0)).Uint32(unix.IFLA_GROUP, group)
}
