package rtnl

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// SetNeighbour says which MAC address an address on an interface has. The entry ages as one that the kernel
// learnt.
func SetNeighbour(index int, a netip.Addr, mac net.HardwareAddr) *Message {
	header := make([]byte, unix.SizeofNdMsg)
	header[0] = family(a)
	native.PutUint32(header[4:], uint32(index))
	native.PutUint16(header[8:], unix.NUD_REACHABLE)
	return newMessage(fmt.Sprintf("set neighbour %s", a), unix.RTM_NEWNEIGH, Create|Replace, header).
		Bytes(unix.NDA_DST, a.AsSlice()).Bytes(unix.NDA_LLADDR, mac)
}
