package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Text returns the expressions of a rule of a family as text, which is that of the rule when the kernel has
// it: so what is wanted can be compared with what is there.
func Text(nfProto byte, rule []expr.Any) (string, error) {
	var all []expression
	for _, e := range rule {
		written, err := expr.Marshal(nfProto, e)
		if err != nil {
			return "", err
		}
		all = append(all, newExpression(parseExpression(written)))
	}
	return textOf(all), nil
}

// textOfAll returns the expressions of a rule of the kernel as text.
func textOfAll(expressions []byte) string {
	var all []expression
	netlink.Attributes(expressions, func(_ uint16, e []byte) {
		all = append(all, newExpression(parseExpression(e)))
	})
	return textOf(all)
}

// textOf returns expressions as text. What nft(8) writes in other expressions than this package is the same.
func textOf(all []expression) string {
	var words []string
	for len(all) > 0 {
		same, n := withoutMask(all)
		if n == 0 {
			same, n = withValues(all)
		}
		if n == 0 {
			same, n = all[:1], 1
		}

		for _, e := range same {
			words = append(words, e.String())
		}
		all = all[n:]
	}
	return strings.Join(words, " | ")
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
	"fib":       {registers: []uint16{unix.NFTA_FIB_DREG}},
	"immediate": {registers: []uint16{unix.NFTA_IMMEDIATE_DREG}, data: []uint16{unix.NFTA_IMMEDIATE_DATA}},
	"lookup": {
		registers: []uint16{unix.NFTA_LOOKUP_SREG, unix.NFTA_LOOKUP_DREG},
		names:     []uint16{unix.NFTA_LOOKUP_SET},
		ignored:   unix.NFTA_LOOKUP_SET_ID,
	},
	"meta": {registers: []uint16{unix.NFTA_META_DREG, unix.NFTA_META_SREG}},
	"nat": {registers: []uint16{
		unix.NFTA_NAT_REG_ADDR_MIN,
		unix.NFTA_NAT_REG_ADDR_MAX,
		unix.NFTA_NAT_REG_PROTO_MIN,
		unix.NFTA_NAT_REG_PROTO_MAX,
	}},
	"objref":  {names: []uint16{unix.NFTA_OBJREF_IMM_NAME}},
	"payload": {registers: []uint16{unix.NFTA_PAYLOAD_DREG, unix.NFTA_PAYLOAD_SREG}},
}

// expression is one of a rule: its kind, and its attributes in order. Zero is as none.
type expression struct {
	kind   string
	fields []field
}

type field struct {
	kind uint16
	text string
}

func newExpression(kind string, attributes []byte) expression {
	e := expression{kind: kind}
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
		e.fields = append(e.fields, field{kind, text})
	})

	slices.SortFunc(e.fields, func(a, b field) int { return int(a.kind) - int(b.kind) })
	if kind == "nat" {
		e.dropImplied()
	}
	return e
}

func (e expression) String() string {
	words := []string{e.kind}
	for _, a := range e.fields {
		words = append(words, fmt.Sprintf("%d:%s", a.kind, a.text))
	}
	return strings.Join(words, " ")
}

// get returns the text of an attribute, "" for none.
func (e expression) get(kind uint16) string {
	for _, a := range e.fields {
		if a.kind == kind {
			return a.text
		}
	}
	return ""
}

// with returns the expression with another text of an attribute that it has; "" leaves the attribute out.
func (e expression) with(kind uint16, text string) expression {
	e.fields = slices.Clone(e.fields)
	for i, a := range e.fields {
		if a.kind == kind {
			e.fields[i].text = text
		}
	}
	e.fields = slices.DeleteFunc(e.fields, func(a field) bool { return a.text == "" })
	return e
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

// dropImplied leaves out of a nat what the kernel makes of the rest: a range that ends where it begins, and
// that there are addresses and ports.
func (e *expression) dropImplied() {
	const addresses, ports = 1 << 0, 1 << 1
	for last, first := range map[uint16]uint16{
		unix.NFTA_NAT_REG_ADDR_MAX:  unix.NFTA_NAT_REG_ADDR_MIN,
		unix.NFTA_NAT_REG_PROTO_MAX: unix.NFTA_NAT_REG_PROTO_MIN,
	} {
		if e.get(last) == e.get(first) {
			*e = e.with(last, "")
		}
	}

	flags, err := strconv.ParseUint(e.get(unix.NFTA_NAT_FLAGS), 16, 32)
	if err != nil {
		return
	}
	text := ""
	if rest := flags &^ (addresses | ports); rest != 0 {
		text = fmt.Sprintf("%08x", rest)
	}
	*e = e.with(unix.NFTA_NAT_FLAGS, text)
}

// bitwiseOp is NFTA_BITWISE_OP of <linux/netfilter/nf_tables.h>, which is zero for a mask.
const bitwiseOp = 6

// withoutMask returns what is the same as the first three of some expressions, if these compare the whole
// bytes that a prefix has: nft(8) loads those alone. A prefix of no bytes compares nothing. n is how many
// expressions it stands for.
func withoutMask(all []expression) (same []expression, n int) {
	if len(all) < 3 || all[0].kind != "payload" || all[1].kind != "bitwise" || all[2].kind != "cmp" {
		return nil, 0
	}

	load, and, compare := all[0], all[1], all[2]
	mask, data := and.get(unix.NFTA_BITWISE_MASK), compare.get(unix.NFTA_CMP_DATA)
	kept := len(mask) - len(strings.TrimLeft(mask, "f"))
	register := load.get(unix.NFTA_PAYLOAD_DREG)
	isPlain := register == and.get(unix.NFTA_BITWISE_SREG) && register == and.get(unix.NFTA_BITWISE_DREG) &&
		register == compare.get(unix.NFTA_CMP_SREG) && and.get(bitwiseOp) == "" &&
		isZero(and.get(unix.NFTA_BITWISE_XOR))
	isPrefix := kept%2 == 0 && isZero(mask[kept:]) && len(data) == len(mask) && isZero(data[kept:])

	// Whether a number is larger is another matter.
	isNot := compare.get(unix.NFTA_CMP_OP) == fmt.Sprintf("%08x", unix.NFT_CMP_NEQ)
	isEqual := compare.get(unix.NFTA_CMP_OP) == ""
	switch {
	case !isPlain || !isPrefix || !isNot && !isEqual || kept == 0 && isNot:
		return nil, 0
	case kept == 0:
		return nil, 3
	}

	return []expression{
		load.with(unix.NFTA_PAYLOAD_LEN, fmt.Sprintf("%08x", kept/2)),
		compare.with(unix.NFTA_CMP_DATA, data[:kept]),
	}, 3
}

func isZero(digits string) bool { return strings.Trim(digits, "0") == "" }

// withValues returns a nat with address and port in the place of registers, if these are what the first two
// of some expressions load: nft(8) takes other registers. n is how many expressions it stands for.
func withValues(all []expression) (same []expression, n int) {
	if len(all) < 3 || all[0].kind != "immediate" || all[1].kind != "immediate" || all[2].kind != "nat" {
		return nil, 0
	}

	translate := all[2]
	used := 0
	for i, register := range []uint16{unix.NFTA_NAT_REG_ADDR_MIN, unix.NFTA_NAT_REG_PROTO_MIN} {
		into, err := strconv.Atoi(all[i].get(unix.NFTA_IMMEDIATE_DREG))
		if err != nil || translate.get(register) != strconv.Itoa(into) || into < used {
			return nil, 0
		}

		// A register has 4 bytes, which are 8 digits: the port must not be loaded over the address.
		value := all[i].get(unix.NFTA_IMMEDIATE_DATA)
		used = into + len(value)/8
		translate = translate.with(register, "="+value)
	}

	return []expression{translate}, 3
}
