package rtnl

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Numbers of <linux/if_bridge.h> and <linux/rtnetlink.h> that package unix does not have.
const (
	bridgeVLANInfo     = 2
	bridgeVLANPVID     = 2
	bridgeVLANUntagged = 4
	bridgeVLANBegin    = 8
	bridgeVLANEnd      = 16
	filterBridgeVLAN   = 2
)

// VLAN is one, or a range, that a port of a bridge is in.
type VLAN struct {
	First, Last uint16
	// Native makes it the VLAN of packets without a tag, both ways.
	Native bool
}

// AddVLAN puts a port of a bridge into a VLAN. The kernel needs CONFIG_BRIDGE_VLAN_FILTERING.
func AddVLAN(index int, v VLAN) *netlink.Message {
	op := fmt.Sprintf("add interface %d to VLAN %d-%d (bridge VLAN filtering)", index, v.First, v.Last)
	return v.message(op, unix.RTM_SETLINK, index)
}

// DeleteVLAN takes a port of a bridge out of a VLAN.
func DeleteVLAN(index int, v VLAN) *netlink.Message {
	op := fmt.Sprintf("remove interface %d from VLAN %d-%d (bridge VLAN filtering)", index, v.First, v.Last)
	return v.message(op, unix.RTM_DELLINK, index)
}

func (v VLAN) message(op string, kind uint16, index int) *netlink.Message {
	header := ifinfo(index, 0, 0)
	header[0] = unix.AF_BRIDGE
	m := netlink.NewMessage(op, kind, 0, header).Nest(unix.IFLA_AF_SPEC)
	flags := uint16(0)
	if v.Native {
		flags = bridgeVLANPVID | bridgeVLANUntagged
	}
	if v.First == v.Last {
		return m.Bytes(bridgeVLANInfo, vlanInfo(flags, v.First)).End()
	}
	return m.Bytes(bridgeVLANInfo, vlanInfo(flags|bridgeVLANBegin, v.First)).
		Bytes(bridgeVLANInfo, vlanInfo(flags|bridgeVLANEnd, v.Last)).
		End()
}

// vlanInfo returns a struct bridge_vlan_info.
func vlanInfo(flags, id uint16) []byte {
	return native.AppendUint16(native.AppendUint16(nil, flags), id)
}

// VLANs lists the VLANs that a port of a bridge is in, one by one.
func (c *Conn) VLANs(index int) (all []VLAN, err error) {
	header := ifinfo(0, 0, 0)
	header[0] = unix.AF_BRIDGE
	op := fmt.Sprintf("list VLANs of interface %d", index)
	m := netlink.NewMessage(op, unix.RTM_GETLINK, 0, header).Uint32(unix.IFLA_EXT_MASK, filterBridgeVLAN)
	err = c.Dump(m, func(_ uint16, body []byte) {
		if len(body) >= unix.SizeofIfInfomsg && int(native.Uint32(body[4:])) == index {
			all = append(all, parseVLANs(body[unix.SizeofIfInfomsg:])...)
		}
	})
	return all, err
}

func parseVLANs(data []byte) (all []VLAN) {
	netlink.Attributes(data, func(kind uint16, spec []byte) {
		if kind != unix.IFLA_AF_SPEC {
			return
		}
		netlink.Attributes(spec, func(kind uint16, value []byte) {
			if kind != bridgeVLANInfo || len(value) != 4 {
				return
			}

			id := native.Uint16(value[2:])
			isNative := native.Uint16(value)&bridgeVLANPVID != 0
			all = append(all, VLAN{First: id, Last: id, Native: isNative})
		})
	})
	return all
}

// SetVLANFiltering makes a bridge look at VLANs.
func SetVLANFiltering(bridge string) *netlink.Message {
	op := "make bridge " + bridge + " look at VLANs (bridge VLAN filtering)"
	return change(op, bridge).
		Nest(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, KindBridge).
		Nest(unix.IFLA_INFO_DATA).Uint8(unix.IFLA_BR_VLAN_FILTERING, 1).
		End().End()
}
