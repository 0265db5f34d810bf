package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// attribute is a struct nlattr.
func attribute(kind uint16, value string) string {
	a := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	a = binary.NativeEndian.AppendUint16(a, kind)
	a = append(a, value...)
	for len(a)%unix.NLA_ALIGNTO != 0 {
		a = append(a, 0)
	}
	return string(a)
}

func number(kind uint16, n uint32) string {
	return attribute(kind, string(binary.BigEndian.AppendUint32(nil, n)))
}

// told is a rule with one expression, as the kernel tells it.
func told(kind, attributes string) Rule {
	expression := attribute(unix.NFTA_EXPR_NAME, kind+"\x00") + attribute(unix.NFTA_EXPR_DATA, attributes)
	_, r := parseRule([]byte("\x01\x00\x00\x00" +
		attribute(unix.NFTA_RULE_EXPRESSIONS, attribute(unix.NFTA_LIST_ELEM, expression))))
	return r
}

func load(size uint32) *expr.Payload {
	return &expr.Payload{
		DestRegister: Reg0,
		Base:         expr.PayloadBaseNetworkHeader,
		Offset:       16,
		Len:          size,
	}
}

func compare(op expr.CmpOp, data ...byte) *expr.Cmp {
	return &expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: data}
}

// nft(8) writes rules of one meaning in other expressions than this package.
func TestTextIsThatOfWhatNftWrites(t *testing.T) {
	subnet, all := netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("0.0.0.0/0")
	to := netip.MustParseAddrPort("10.1.2.3:80")
	address := &expr.Immediate{Register: unix.NFT_REG_1, Data: []byte{10, 1, 2, 3}}
	port := &expr.Immediate{Register: unix.NFT_REG_2, Data: []byte{0, 80}}
	nat := expr.NAT{
		Type:        expr.NATTypeDestNAT,
		Family:      unix.NFPROTO_IPV4,
		RegAddrMin:  unix.NFT_REG_1,
		RegProtoMin: unix.NFT_REG_2,
		Specified:   true,
	}
	random := nat
	random.Random = true

	for name, c := range map[string]struct {
		ours, theirs []expr.Any
		isSame       bool
	}{
		"the bytes of a prefix": {
			V4.IsWithin(16, subnet), []expr.Any{load(3), compare(expr.CmpOpEq, 10, 1, 2)}, true,
		},
		"not a prefix": {
			V4.IsNotWithin(16, subnet), []expr.Any{load(3), compare(expr.CmpOpNeq, 10, 1, 2)}, true,
		},
		"another comparison": {
			V4.IsWithin(16, subnet), []expr.Any{load(3), compare(expr.CmpOpNeq, 10, 1, 2)}, false,
		},
		"a shorter prefix": {
			V4.IsWithin(16, subnet), []expr.Any{load(2), compare(expr.CmpOpEq, 10, 1)}, false,
		},
		"a prefix within a byte": {
			V4.IsWithin(16, netip.MustParsePrefix("10.1.2.0/23")),
			[]expr.Any{load(3), compare(expr.CmpOpEq, 10, 1, 2)}, false,
		},
		"any address":      {slices.Concat(V4.IsWithin(16, all), Masquerade()), Masquerade(), true},
		"no address":       {slices.Concat(V4.IsNotWithin(16, all), Masquerade()), Masquerade(), false},
		"a translation":    {DestinationNAT(V4, to), []expr.Any{address, port, &nat}, true},
		"a random port":    {DestinationNAT(V4, to), []expr.Any{address, port, &random}, false},
		"swapped operands": {DestinationNAT(V4, to), []expr.Any{port, address, &nat}, false},
	} {
		ours, err := Text(unix.NFPROTO_INET, c.ours)
		if err != nil {
			t.Error(err)
		}
		theirs, err := Text(unix.NFPROTO_INET, c.theirs)
		if err != nil || (ours == theirs) != c.isSame {
			t.Errorf("%s: %q and %q, %v", name, ours, theirs, err)
		}
	}
}

// The kernel tells a rule otherwise than it was written.
func TestTextIsThatOfTheRuleWhenTheKernelTellsIt(t *testing.T) {
	set := attribute(unix.NFTA_LOOKUP_SET, "ports7\x00")
	register := number(unix.NFTA_LOOKUP_SREG, unix.NFT_REG32_00)
	lookup := &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: "ports7", SetID: 5}
	verdict := attribute(unix.NFTA_DATA_VERDICT, number(unix.NFTA_VERDICT_CODE, 1))

	for _, c := range []struct {
		what    string
		written expr.Any
		told    Rule
		isSame  bool
	}{
		{"a register by another number", lookup, told("lookup", set+register), true},
		{
			"attributes in another order, and one that is zero", lookup,
			told("lookup", register+number(unix.NFTA_LOOKUP_FLAGS, 0)+set), true,
		},
		{
			"the number in a transaction", lookup,
			told("lookup", set+register+number(unix.NFTA_LOOKUP_SET_ID, 9)), true,
		},
		{"an inverted one", lookup, told("lookup", set+register+number(unix.NFTA_LOOKUP_FLAGS, 1)), false},
		{
			"another register", lookup,
			told("lookup", set+number(unix.NFTA_LOOKUP_SREG, unix.NFT_REG32_01)), false,
		},
		{
			"another set", lookup,
			told("lookup", attribute(unix.NFTA_LOOKUP_SET, "ports8\x00")+register), false,
		},
		{"another kind", lookup, told("dynset", set+register), false},
		{
			"a verdict", &expr.Verdict{Kind: expr.VerdictAccept},
			told("immediate", number(unix.NFTA_IMMEDIATE_DREG, 0)+
				attribute(unix.NFTA_IMMEDIATE_DATA, verdict)), true,
		},
	} {
		written, err := Text(unix.NFPROTO_INET, []expr.Any{c.written})
		if err != nil || (written == c.told.Text()) != c.isSame {
			t.Errorf("%s: %q and %q, %v", c.what, written, c.told.Text(), err)
		}
	}
}
