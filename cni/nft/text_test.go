package nft

import (
	"encoding/binary"
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
