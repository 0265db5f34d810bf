package sourceguard

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Where a frame has what is compared. Its VLAN tag, if it has one, is beside it: that of a second one,
// inside, is an EtherType that is dropped. A load from beyond the end of the frame ends the program, and
// lets the frame go on: it has no address that anybody could read.
const (
	atSourceMAC = 6
	atType      = 12
	atPayload   = 14

	atARPKind     = atPayload
	atARPSizes    = atPayload + 4
	atARPSender   = atPayload + 8
	atARPSenderIP = atPayload + 14

	atSource4 = atPayload + 12

	atNextHeader = atPayload + 6
	atHopLimit   = atPayload + 7
	atSource6    = atPayload + 8
	atICMP6      = atPayload + 40
	atTarget     = atICMP6 + 8
)

// The verdicts of a filter (TC_ACT_SHOT and TC_ACT_UNSPEC): a frame that is not dropped goes on to the next
// one.
var (
	drop = bpf.RetConstant{Val: 2}
	pass = bpf.RetConstant{Val: 0xffffffff}
)

type block []bpf.Instruction

// instructions return a verdict on each frame.
func (g Guard) instructions() block {
	program := slices.Concat(
		require(atSourceMAC, 4, binary.BigEndian.Uint32(g.MAC)),
		require(atSourceMAC+4, 2, uint32(binary.BigEndian.Uint16(g.MAC[4:]))),
	)
	if len(g.Addresses) == 0 {
		return append(program, pass)
	}

	var v4, v6 []netip.Addr
	for _, a := range g.Addresses {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}

	return slices.Concat(program,
		load(atType, 2),
		ifEqual(unix.ETH_P_IP, ofIPv4(v4)),
		ifEqual(unix.ETH_P_IPV6, ofIPv6(v6)),
		ifEqual(unix.ETH_P_ARP, g.ofARP(v4)),
		block{drop},
	)
}

// ofIPv4 lets packets from some addresses pass.
func ofIPv4(own []netip.Addr) block {
	program := load(atSource4, 4)
	for _, a := range own {
		program = append(program, ifEqual(word(a, 0), block{pass})...)
	}
	return append(program, drop)
}

// ofARP lets those messages pass that say where some addresses are, or nothing, as one that asks whether an
// address is free.
func (g Guard) ofARP(own []netip.Addr) block {
	// Ethernet and IPv4, with addresses of 6 and 4 bytes.
	program := slices.Concat(
		require(atARPKind, 4, 0x0001<<16|unix.ETH_P_IP),
		require(atARPSizes, 2, 0x0604),
		require(atARPSender, 4, binary.BigEndian.Uint32(g.MAC)),
		require(atARPSender+4, 2, uint32(binary.BigEndian.Uint16(g.MAC[4:]))),
		load(atARPSenderIP, 4),
	)
	for _, a := range append([]netip.Addr{netip.IPv4Unspecified()}, own...) {
		program = append(program, ifEqual(word(a, 0), block{pass})...)
	}
	return append(program, drop)
}

// Numbers of <linux/in6.h> and <linux/icmpv6.h>.
const (
	neighbourAdvertisement = 136
	// maxHopLimit is what messages about neighbours have, of which those with another one are not believed.
	maxHopLimit = 255
)

// extensions are headers that may come before ICMPv6: hop-by-hop and destination options, routing, fragment.
var extensions = []uint32{
	unix.IPPROTO_HOPOPTS,
	unix.IPPROTO_ROUTING,
	unix.IPPROTO_FRAGMENT,
	unix.IPPROTO_DSTOPTS,
}

// ofIPv6 lets packets pass from some addresses, from link-local ones, which each interface makes for
// itself, and from none, as one has that asks whether an address is free. What says where an address is has
// to be about one of these, too; where it could be behind other headers, all of its kind is dropped.
func ofIPv6(own []netip.Addr) block {
	program := load(atNextHeader, 1)
	for _, e := range extensions {
		program = append(program, ifEqual(e, slices.Concat(
			load(atHopLimit, 1), ifEqual(maxHopLimit, block{drop}), load(atNextHeader, 1)))...)
	}

	// The source comes first: a frame that ends before what is loaded next is let go on.
	program = append(program, requireOne(atSource6, append([]netip.Addr{netip.IPv6Unspecified()}, own...))...)
	advertised := slices.Concat(load(atICMP6, 1), ifEqual(neighbourAdvertisement, requireOne(atTarget, own)))
	program = append(program, load(atNextHeader, 1)...)
	program = append(program, ifEqual(unix.IPPROTO_ICMPV6, advertised)...)
	return append(program, pass)
}

// requireOne drops what does not have one of some addresses of IPv6 somewhere, or a link-local one. Others go
// on behind the block.
func requireOne(at uint32, addresses []netip.Addr) block {
	program := block{drop}
	goOn := func() block { return block{bpf.Jump{Skip: uint32(len(program))}} }
	program = append(ifLinkLocal(at, goOn()), program...)
	for _, a := range addresses {
		program = append(ifSame(at, a, goOn()), program...)
	}
	return program
}

// load reads some bytes of the frame.
func load(at uint32, size int) block { return block{bpf.LoadAbsolute{Off: at, Size: size}} }

// require drops what has another value somewhere.
func require(at uint32, size int, value uint32) block {
	return append(load(at, size), bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: 1}, drop)
}

// ifEqual runs a block if what was loaded has a value.
func ifEqual(value uint32, then block) block {
	return append(block{
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(then))},
	}, then...)
}

// ifSame runs a block if an address of IPv6 is somewhere.
func ifSame(at uint32, a netip.Addr, then block) block {
	for i := 3; i >= 0; i-- {
		then = append(load(at+uint32(4*i), 4), ifEqual(word(a, i), then)...)
	}
	return then
}

// ifLinkLocal runs a block if an address of fe80::/10 is somewhere.
func ifLinkLocal(at uint32, then block) block {
	program := append(load(at, 4), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffc00000})
	return append(program, ifEqual(0xfe800000, then)...)
}

// word returns four bytes of an address.
func word(a netip.Addr, i int) uint32 { return binary.BigEndian.Uint32(a.AsSlice()[4*i:]) }
