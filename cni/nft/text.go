package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Text returns the expressions of a rule of a family as text, which is that of the rule when the kernel has
// it: so what is wanted can be compared with what is there.
func Text(nfProto byte, rule []expr.Any) (string, error) {
	var all []string
	for _, e := range rule {
		expression, err := expr.Marshal(nfProto, e)
		if err != nil {
			return "", err
		}
		all = append(all, textOf(parseExpression(expression)))
	}
	return strings.Join(all, " | "), nil
}

// textOfAll returns the expressions of a rule of the kernel as text.
func textOfAll(expressions []byte) string {
	var all []string
	netlink.Attributes(expressions, func(_ uint16, expression []byte) {
		all = append(all, textOf(parseExpression(expression)))
	})
	return strings.Join(all, " | ")
}

// layout says what the attributes of a kind of expression are.
type layout struct {
	// registers and data are attributes of these kinds, names those that are text.
	registers, data, names []uint16
	// ignored is one that the kernel is told, and does not tell.
	ignored uint16
}

// layouts are those of the expressions that have other attributes than numbers.
var layouts = map[string]layout{
	"bitwise": {
		registers: []uint16{unix.NFTA_BITWISE_SREG, unix.NFTA_BITWISE_DREG},
		data:      []uint16{unix.NFTA_BITWISE_MASK, unix.NFTA_BITWISE_XOR},
	},
	"cmp":       {registers: []uint16{unix.NFTA_CMP_SREG}, data: []uint16{unix.NFTA_CMP_DATA}},
	"ct":        {registers: []uint16{unix.NFTA_CT_DREG, unix.NFTA_CT_SREG}},
	"immediate": {registers: []uint16{unix.NFTA_IMMEDIATE_DREG}, data: []uint16{unix.NFTA_IMMEDIATE_DATA}},
	"lookup": {
		registers: []uint16{unix.NFTA_LOOKUP_SREG, unix.NFTA_LOOKUP_DREG},
		names:     []uint16{unix.NFTA_LOOKUP_SET},
		ignored:   unix.NFTA_LOOKUP_SET_ID,
	},
	"meta":    {registers: []uint16{unix.NFTA_META_DREG, unix.NFTA_META_SREG}},
	"objref":  {names: []uint16{unix.NFTA_OBJREF_IMM_NAME}},
	"payload": {registers: []uint16{unix.NFTA_PAYLOAD_DREG, unix.NFTA_PAYLOAD_SREG}},
}

// textOf returns an expression as text: its kind, and its attributes in order. Zero is as none.
func textOf(kind string, attributes []byte) string {
	type attribute struct {
		kind uint16
		text string
	}
	var all []attribute
	l := layouts[kind]
	netlink.Attributes(attributes, func(kind uint16, value []byte) {
		text := fmt.Sprintf("%x", value)
		switch {
		case kind == l.ignored && l.ignored != 0:
			return
		case slices.Contains(l.names, kind):
			text = netlink.Text(value)
		case slices.Contains(l.registers, kind) && len(value) == 4:
			text = fmt.Sprint(register(binary.BigEndian.Uint32(value)))
		case slices.Contains(l.data, kind):
			if v := parseVerdict(value); v != nil {
				text = fmt.Sprint(v.Kind, " ", v.Chain)
				break
			}
			text = fmt.Sprintf("%x", dataValue(value))
		case len(bytes.Trim(value, "\x00")) == 0:
			return
		}
		all = append(all, attribute{kind, text})
	})
	slices.SortFunc(all, func(a, b attribute) int { return int(a.kind) - int(b.kind) })

	words := []string{kind}
	for _, a := range all {
		words = append(words, fmt.Sprintf("%d:%s", a.kind, a.text))
	}
	return strings.Join(words, " ")
}

// register returns the number of a register of 4 bytes. The kernel tells those that begin one of 16 bytes by
// the number of that.
func register(number uint32) uint32 {
	const words = 4
	if number >= unix.NFT_REG_1 && number <= unix.NFT_REG_4 {
		return unix.NFT_REG32_00 + words*(number-unix.NFT_REG_1)
	}
	return number
}
