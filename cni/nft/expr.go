// Package nft has what the tables of this program are made of: statements of nft(8) as the expressions of the
// kernel, and what the kernel says about chains, rules and elements. Transactions are written with
// google/nftables; what is read goes over a plain socket of package netlink, which costs less.
package nft

import (
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/prefix"
)

// Reg0 is the first register of 4 bytes; an address of IPv6 takes four. The parts of a concatenation lie side
// by side in them.
const Reg0 = unix.NFT_REG32_00

// Family has the constants in which the rules of IPv4 and IPv6 differ.
type Family struct {
	// NFProto is NFPROTO_IPV4 or NFPROTO_IPV6.
	NFProto byte
	// Size is that of an address, in bytes.
	Size int
	// Source and Destination are the offsets of the addresses in the IP header.
	Source      uint32
	Destination uint32
}

// The two families.
var (
	V4 = Family{
		NFProto:     unix.NFPROTO_IPV4,
		Size:        4,
		Source:      12,
		Destination: 16,
	}
	V6 = Family{
		NFProto:     unix.NFPROTO_IPV6,
		Size:        16,
		Source:      8,
		Destination: 24,
	}
)

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return V4
	}
	return V6
}

// The functions below return the statement of nft(8) in their comment.

// IsFamily: meta nfproto ipv4|ipv6.
func (f Family) IsFamily() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: Reg0},
		equal([]byte{f.NFProto}),
	}
}

// LoadAddress: ip saddr|daddr, into a register.
func (f Family) LoadAddress(offset, register uint32) []expr.Any {
	return []expr.Any{&expr.Payload{
		DestRegister: register,
		Base:         expr.PayloadBaseNetworkHeader,
		Offset:       offset,
		Len:          uint32(f.Size),
	}}
}

// IsWithin: ip saddr|daddr PREFIX.
func (f Family) IsWithin(offset uint32, p netip.Prefix) []expr.Any {
	return append(f.LoadAddress(offset, Reg0),
		and(prefix.Mask(p)),
		equal(p.Masked().Addr().AsSlice()),
	)
}

// Translate: dnat to the address and port that a Lookup left in the registers.
func (f Family) Translate() []expr.Any {
	return []expr.Any{&expr.NAT{
		Type:        expr.NATTypeDestNAT,
		Family:      uint32(f.NFProto),
		RegAddrMin:  Reg0,
		RegProtoMin: Reg0 + uint32(f.Size)/4,
	}}
}

func equal(value []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: Reg0, Data: value}
}

// and masks the first register.
func and(mask []byte) expr.Any {
	return &expr.Bitwise{
		SourceRegister: Reg0,
		DestRegister:   Reg0,
		Len:            uint32(len(mask)),
		Mask:           mask,
		Xor:            make([]byte, len(mask)),
	}
}

// LoadProtocol: meta l4proto, into a register.
func LoadProtocol(register uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}}
}

// LoadPort: th dport, into a register. TCP, UDP and SCTP have it in the same place.
func LoadPort(register uint32) []expr.Any {
	return []expr.Any{&expr.Payload{
		DestRegister: register,
		Base:         expr.PayloadBaseTransportHeader,
		Offset:       2,
		Len:          2,
	}}
}

// Lookup: map @NAME, whose value replaces the key in the registers.
func Lookup(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{
		SourceRegister: Reg0,
		DestRegister:   Reg0,
		IsDestRegSet:   true,
		SetName:        s.Name,
		SetID:          s.ID,
	}}
}

// InSet: @NAME.
func InSet(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: Reg0, SetName: s.Name, SetID: s.ID}}
}

// NotInSet: != @NAME.
func NotInSet(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{
		SourceRegister: Reg0,
		SetName:        s.Name,
		SetID:          s.ID,
		Invert:         true,
	}}
}

// IsToThisHost: fib daddr type local.
func IsToThisHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: Reg0, FlagDADDR: true, ResultADDRTYPE: true},
		equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	}
}

// IsTranslated: ct status dnat.
func IsTranslated() []expr.Any {
	// IPS_DST_NAT of <linux/netfilter/nf_conntrack_common.h>.
	const dstNAT = 1 << 5
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: Reg0},
		and(binaryutil.NativeEndian.PutUint32(dstNAT)),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: Reg0, Data: make([]byte, 4)},
	}
}

// InterfaceIs: iifname|oifname NAME.
func InterfaceIs(key expr.MetaKey, name string) []expr.Any {
	return compareInterface(expr.CmpOpEq, key, name)
}

// InterfaceIsNot: iifname|oifname != NAME.
func InterfaceIsNot(key expr.MetaKey, name string) []expr.Any {
	return compareInterface(expr.CmpOpNeq, key, name)
}

func compareInterface(op expr.CmpOp, key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: Reg0},
		&expr.Cmp{Op: op, Register: Reg0, Data: padded},
	}
}

// Masquerade: masquerade.
func Masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

// Jump: Jump CHAIN.
func Jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// Verdict: drop|return.
func Verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

// Goto: goto CHAIN.
func Goto(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

// Is: ip saddr|daddr ADDRESS.
func (f Family) Is(offset uint32, a netip.Addr) []expr.Any {
	return append(f.LoadAddress(offset, Reg0), equal(a.AsSlice()))
}

// IsNotWithin: ip saddr|daddr != PREFIX.
func (f Family) IsNotWithin(offset uint32, p netip.Prefix) []expr.Any {
	return append(f.LoadAddress(offset, Reg0),
		and(prefix.Mask(p)),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: Reg0, Data: p.Masked().Addr().AsSlice()},
	)
}

// IsFromMAC: ether saddr MAC.
func IsFromMAC(mac net.HardwareAddr) []expr.Any {
	const source, size = 6, 6
	return []expr.Any{
		&expr.Payload{
			DestRegister: Reg0,
			Base:         expr.PayloadBaseLLHeader,
			Offset:       source,
			Len:          size,
		},
		equal(mac),
	}
}

// IsToPort: tcp|udp|sctp dport PORT.
func IsToPort(protocol byte, port uint16) []expr.Any {
	return slices.Concat(
		LoadProtocol(Reg0),
		[]expr.Any{equal([]byte{protocol})},
		LoadPort(Reg0),
		[]expr.Any{equal(binaryutil.BigEndian.PutUint16(port))},
	)
}

// IsOfVXLAN: @th,96,24 VNI, of a UDP packet (RFC 7348, section 5). One that is too short for it is not.
func IsOfVXLAN(identifier uint32) []expr.Any {
	const udp, flags, size = 8, 4, 3
	return []expr.Any{
		&expr.Payload{
			DestRegister: Reg0,
			Base:         expr.PayloadBaseTransportHeader,
			Offset:       udp + flags,
			Len:          size,
		},
		equal(binaryutil.BigEndian.PutUint32(identifier)[4-size:]),
	}
}

// DestinationNAT: dnat to ADDRESS:PORT, in a table of the family.
func DestinationNAT(f Family, to netip.AddrPort) []expr.Any {
	behind := Reg0 + uint32(f.Size)/4
	return []expr.Any{
		&expr.Immediate{Register: Reg0, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: behind, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		&expr.NAT{
			Type:        expr.NATTypeDestNAT,
			Family:      uint32(f.NFProto),
			RegAddrMin:  Reg0,
			RegProtoMin: behind,
		},
	}
}

// LoadInterface: iifname|oifname, into the first register.
func LoadInterface(key expr.MetaKey) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: Reg0}}
}
