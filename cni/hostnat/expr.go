package hostnat

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/prefix"
)

// reg0 is the first register of 4 bytes; an address of IPv6 takes four. The parts of a concatenation lie side
// by side in them.
const reg0 = unix.NFT_REG32_00

// The functions below return the statement of nft(8) in their comment.

// isFamily: meta nfproto ipv4|ipv6.
func (f *family) isFamily() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg0},
		equal([]byte{f.nfproto}),
	}
}

// loadAddress: ip saddr|daddr, into a register.
func (f *family) loadAddress(offset, register uint32) []expr.Any {
	return []expr.Any{&expr.Payload{
		DestRegister: register,
		Base:         expr.PayloadBaseNetworkHeader,
		Offset:       offset,
		Len:          uint32(f.size),
	}}
}

// isWithin: ip saddr|daddr PREFIX.
func (f *family) isWithin(offset uint32, p netip.Prefix) []expr.Any {
	return append(f.loadAddress(offset, reg0),
		and(prefix.Mask(p)),
		equal(p.Masked().Addr().AsSlice()),
	)
}

// translate: dnat to the address and port that a lookup left in the registers.
func (f *family) translate() []expr.Any {
	return []expr.Any{&expr.NAT{
		Type:        expr.NATTypeDestNAT,
		Family:      uint32(f.nfproto),
		RegAddrMin:  reg0,
		RegProtoMin: reg0 + uint32(f.size)/4,
	}}
}

func equal(value []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: value}
}

// and masks the first register.
func and(mask []byte) expr.Any {
	return &expr.Bitwise{
		SourceRegister: reg0,
		DestRegister:   reg0,
		Len:            uint32(len(mask)),
		Mask:           mask,
		Xor:            make([]byte, len(mask)),
	}
}

// loadProtocol: meta l4proto, into a register.
func loadProtocol(register uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}}
}

// loadPort: th dport, into a register. TCP, UDP and SCTP have it in the same place.
func loadPort(register uint32) []expr.Any {
	return []expr.Any{&expr.Payload{
		DestRegister: register,
		Base:         expr.PayloadBaseTransportHeader,
		Offset:       2,
		Len:          2,
	}}
}

// lookup: map @NAME, whose value replaces the key in the registers.
func lookup(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{
		SourceRegister: reg0,
		DestRegister:   reg0,
		IsDestRegSet:   true,
		SetName:        s.Name,
		SetID:          s.ID,
	}}
}

// inSet: @NAME.
func inSet(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg0, SetName: s.Name, SetID: s.ID}}
}

// notInSet: != @NAME.
func notInSet(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{
		SourceRegister: reg0,
		SetName:        s.Name,
		SetID:          s.ID,
		Invert:         true,
	}}
}

// isToThisHost: fib daddr type local.
func isToThisHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	}
}

// isTranslated: ct status dnat.
func isTranslated() []expr.Any {
	// IPS_DST_NAT of <linux/netfilter/nf_conntrack_common.h>.
	const dstNAT = 1 << 5
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg0},
		and(binaryutil.NativeEndian.PutUint32(dstNAT)),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, 4)},
	}
}

// interfaceIs: iifname|oifname NAME.
func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	return compareInterface(expr.CmpOpEq, key, name)
}

// interfaceIsNot: iifname|oifname != NAME.
func interfaceIsNot(key expr.MetaKey, name string) []expr.Any {
	return compareInterface(expr.CmpOpNeq, key, name)
}

func compareInterface(op expr.CmpOp, key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg0},
		&expr.Cmp{Op: op, Register: reg0, Data: padded},
	}
}

// masquerade: masquerade.
func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

// jump: jump CHAIN.
func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// verdict: drop|return.
func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }
