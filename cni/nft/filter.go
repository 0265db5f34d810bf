package nft

import (
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What rules that filter need; the statement of nft(8) is in each comment.

// VerdictOf: vmap @NAME, of the key in the registers.
func VerdictOf(name string) []expr.Any {
	return []expr.Any{&expr.Lookup{
		SourceRegister: Reg0,
		DestRegister:   unix.NFT_REG_VERDICT,
		IsDestRegSet:   true,
		SetName:        name,
	}}
}

// IsKnown: ct state established,related.
func IsKnown() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: Reg0},
		and(binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: Reg0, Data: make([]byte, 4)},
	}
}

// Count: counter name NAME.
func Count(name string) []expr.Any {
	return []expr.Any{&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: name}}
}

// IsProtocol: meta protocol ip|ip6, in a table of bridges.
func (f Family) IsProtocol() []expr.Any {
	kind := uint16(unix.ETH_P_IP)
	if f.NFProto == unix.NFPROTO_IPV6 {
		kind = unix.ETH_P_IPV6
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: Reg0},
		equal(binaryutil.BigEndian.PutUint16(kind)),
	}
}

// IsNotOfType: @ll,96,16 != { KINDS }. Unlike meta protocol, this is the type of a VLAN tag if there is one,
// also of a tag that the interface has taken out of the frame.
func IsNotOfType(kinds ...uint16) []expr.Any {
	const offset, size = 12, 2
	all := []expr.Any{&expr.Payload{
		DestRegister: Reg0,
		Base:         expr.PayloadBaseLLHeader,
		Offset:       offset,
		Len:          size,
	}}
	for _, kind := range kinds {
		all = append(all, &expr.Cmp{
			Op:       expr.CmpOpNeq,
			Register: Reg0,
			Data:     binaryutil.BigEndian.PutUint16(kind),
		})
	}
	return all
}

// SendTo: meta pkttype set host, ether daddr set MAC.
func SendTo(mac net.HardwareAddr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: Reg0, Data: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, SourceRegister: true, Register: Reg0},
		&expr.Immediate{Register: Reg0, Data: mac},
		&expr.Payload{
			OperationType:  expr.PayloadWrite,
			SourceRegister: Reg0,
			Base:           expr.PayloadBaseLLHeader,
			Len:            uint32(len(mac)),
		},
	}
}
