package main

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// The table of host ports, and its set. What is in it decides nothing.
const (
	portTable = "floor"
	portSet   = "ports"
	// perPod is how many elements trivet-cni has for a pod with two host ports.
	perPod = 3
)

// publish adds the pod's elements, and the table and the set if they are not there.
func (p pod) publish() error {
	const keySize, ofIntegers = 4, 4
	table := netfilter(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, text(unix.NFTA_TABLE_NAME, portTable))
	set := netfilter(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE,
		text(unix.NFTA_SET_TABLE, portTable),
		text(unix.NFTA_SET_NAME, portSet),
		bigEndian(unix.NFTA_SET_KEY_TYPE, ofIntegers),
		bigEndian(unix.NFTA_SET_KEY_LEN, keySize),
		bigEndian(unix.NFTA_SET_ID, 1),
	)
	return transact(table, set, p.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE))
}

// withdraw deletes the pod's elements. The process ends when the kernel has freed them.
func (p pod) withdraw() error { return transact(p.elements(unix.NFT_MSG_DELSETELEM, 0)) }

func (p pod) elements(kind, flags uint16) []byte {
	var elements []byte
	for i := range perPod {
		key := append([]byte{byte(i)}, p.address[1:]...)
		value := attribute(unix.NFTA_SET_ELEM_KEY, attribute(unix.NFTA_DATA_VALUE, key))
		elements = append(elements, attribute(unix.NFTA_LIST_ELEM, value)...)
	}
	return netfilter(kind, flags,
		text(unix.NFTA_SET_ELEM_LIST_TABLE, portTable),
		text(unix.NFTA_SET_ELEM_LIST_SET, portSet),
		attribute(unix.NFTA_SET_ELEM_LIST_ELEMENTS, elements),
	)
}

// transact sends messages of nftables as one transaction.
func transact(messages ...[]byte) error {
	c, err := open(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}

	// Their number is that of the whole.
	border := func(kind uint16) []byte {
		return message(kind, 0, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES})
	}
	for i, m := range messages {
		native.PutUint32(m[8:], uint32(i+1))
	}
	last := messages[len(messages)-1]
	native.PutUint16(last[6:], native.Uint16(last[6:])|unix.NLM_F_ACK)

	batch := slices.Concat(messages...)
	batch = slices.Concat(border(unix.NFNL_MSG_BATCH_BEGIN), batch, border(unix.NFNL_MSG_BATCH_END))
	return c.exchange(batch, uint32(len(messages)))
}

func netfilter(kind, flags uint16, parts ...[]byte) []byte {
	header := []byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}
	return message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, header, slices.Concat(parts...))
}

func bigEndian(kind uint16, n uint32) []byte {
	return attribute(kind, binary.BigEndian.AppendUint32(nil, n))
}
