package rtnl

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// SetNeighbour sets the MAC address of an address on an interface. The entry ages like one that the kernel
// learnt.
func SetNeighbour(index int, a netip.Addr, mac net.HardwareAddr) *netlink.Message {
	header := make([]byte, unix.SizeofNdMsg)
	header[0] = family(a)
	native.PutUint32(header[4:], uint32(index))
	native.PutUint16(header[8:], unix.NUD_REACHABLE)

	op := fmt.Sprintf("set neighbour %s", a)
	return netlink.NewMessage(op, unix.RTM_NEWNEIGH, netlink.Create|netlink.Replace, header).
		Bytes(unix.NDA_DST, a.AsSlice()).
		Bytes(unix.NDA_LLADDR, mac)
}
