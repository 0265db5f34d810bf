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
