package rtnl

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Neighbour says which MAC address an address has. Values can be compared.
type Neighbour struct {
	Address netip.Addr
	MAC     [6]byte
}

func (n Neighbour) hardware() net.HardwareAddr { return n.MAC[:] }

// ndmsg returns a struct ndmsg.
func ndmsg(family byte, index int, state uint16) []byte {
	header := make([]byte, unix.SizeofNdMsg)
	header[0] = family
	native.PutUint32(header[4:], uint32(index))
	native.PutUint16(header[8:], state)
	return header
}

func (n Neighbour) message(op string, kind, flags uint16, header []byte) *netlink.Message {
	return netlink.NewMessage(op, kind, flags, header).
		Bytes(unix.NDA_DST, n.Address.AsSlice()).
		Bytes(unix.NDA_LLADDR, n.MAC[:])
}

// SetNeighbour sets the MAC address of an address on an interface. The entry ages like one that the kernel
// learnt.
func SetNeighbour(index int, a netip.Addr, mac net.HardwareAddr) *netlink.Message {
	op := fmt.Sprintf("set neighbour %s", a)
	header := ndmsg(family(a), index, unix.NUD_REACHABLE)
	return netlink.NewMessage(op, unix.RTM_NEWNEIGH, netlink.Create|netlink.Replace, header).
		Bytes(unix.NDA_DST, a.AsSlice()).
		Bytes(unix.NDA_LLADDR, mac)
}

// KeepNeighbour sets the MAC address of an address on an interface for good: the kernel never asks for it.
func KeepNeighbour(index int, n Neighbour) *netlink.Message {
	op := fmt.Sprintf("set neighbour %s", n.Address)
	header := ndmsg(family(n.Address), index, unix.NUD_PERMANENT)
	return n.message(op, unix.RTM_NEWNEIGH, netlink.Create|netlink.Replace, header)
}

// DeleteNeighbour removes the entry of an address; IsNotExist(err) when there is none.
func DeleteNeighbour(index int, n Neighbour) *netlink.Message {
	op := fmt.Sprintf("delete neighbour %s", n.Address)
	return n.message(op, unix.RTM_DELNEIGH, 0, ndmsg(family(n.Address), index, 0))
}

// KeptNeighbours lists the entries of an interface that KeepNeighbour has set.
func (c *Conn) KeptNeighbours(index int) (all []Neighbour, err error) {
	for _, f := range []byte{unix.AF_INET, unix.AF_INET6} {
		op := fmt.Sprintf("list neighbours of interface %d", index)
		m := netlink.NewMessage(op, unix.RTM_GETNEIGH, 0, ndmsg(f, 0, 0)).
			Uint32(unix.NDA_IFINDEX, uint32(index))

		err := c.Dump(m, func(_ uint16, body []byte) {
			n, ok := parseNeighbour(body, index)
			if ok && native.Uint16(body[8:])&unix.NUD_PERMANENT != 0 {
				all = append(all, n)
			}
		})
		if err != nil {
			return nil, err
		}
	}

	return all, nil
}

// parseNeighbour reads an entry of an interface; ok is false for one of another interface, or one that lacks
// an address. Older kernels send those of all interfaces.
func parseNeighbour(body []byte, index int) (n Neighbour, ok bool) {
	if len(body) < unix.SizeofNdMsg || int(native.Uint32(body[4:])) != index {
		return n, false
	}

	hasMAC := false
	netlink.Attributes(body[unix.SizeofNdMsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.NDA_DST:
			n.Address, _ = netip.AddrFromSlice(value)
		case unix.NDA_LLADDR:
			hasMAC = copy(n.MAC[:], value) == len(n.MAC)
		}
	})

	return n, hasMAC && n.Address.IsValid()
}

// WatchKeptNeighbours calls changed with the index of an interface of which an entry of KeepNeighbour or
// AddRemote may have changed, in the calling thread's network namespace, until ctx ends; 0 means any. Entries
// that the kernel learns make no call.
func WatchKeptNeighbours(ctx context.Context, changed func(index int)) error {
	groups := netlink.Group(unix.RTNLGRP_NEIGH)
	return netlink.Watch(ctx, netlink.Route, groups, func(kind uint16, body []byte) {
		if kind == 0 || len(body) < unix.SizeofNdMsg {
			changed(0)
			return
		}

		// The state of an entry that is deleted does not tell what it was.
		isKept := native.Uint16(body[8:])&unix.NUD_PERMANENT != 0
		if kind == unix.RTM_DELNEIGH || isKept {
			changed(int(native.Uint32(body[4:])))
		}
	})
}
