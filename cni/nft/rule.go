package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Rule is a rule of a chain, by what it can be found and deleted by.
type Rule struct {
	Chain   string
	Handle  uint64
	Comment string
	// Interface is the name that the rule's first statement compares with, if it is one of interfaces.
	Interface string
	// Verdict is what the rule begins with, if that is a verdict.
	Verdict     *expr.Verdict
	expressions []byte
}

// Text returns what the function Text returns of the rule. Few who list rules need it, and each ADD and DEL
// may list those of all pods.
func (r Rule) Text() string { return textOfAll(r.expressions) }

// Mentions reports whether the rule may compare with, or load, a value. It costs less than Text.
func (r Rule) Mentions(value []byte) bool { return bytes.Contains(r.expressions, value) }

// Rules lists the rules of some chains, of which there may be none.
func (t Reader) Rules(chains ...string) (all []Rule, err error) {
	for _, chain := range chains {
		m := t.request("list nftables rules of "+chain, unix.NFT_MSG_GETRULE).
			String(unix.NFTA_RULE_CHAIN, chain)
		err := t.Conn.Dump(m, func(_ uint16, body []byte) {
			// Older kernels list those of all tables.
			if table, r := parseRule(body); table == t.Table && r.Chain == chain {
				all = append(all, r)
			}
		})
		if err != nil && !netlink.IsNotExist(err) {
			return nil, err
		}
	}

	return all, nil
}

// Chain is a chain as it should be.
type Chain struct {
	Name string
	// Hook and Priority say where the kernel calls the chain; nil for one that only others lead to.
	Hook     *nftables.ChainHook
	Priority *nftables.ChainPriority
	Rules    [][]expr.Any
}

// Compare returns an error that names the first thing of a chain that is not as it should be. Rules are
// compared as the kernel tells them: one that somebody has changed in place is another one.
func (t Reader) Compare(want Chain) error {
	if err := t.CheckHook(want); err != nil {
		return err
	}

	have, err := t.Rules(want.Name)
	if err != nil {
		return err
	}

	where := fmt.Sprintf("chain %s of nftables table %s", want.Name, t.Table)
	if len(have) != len(want.Rules) {
		return fmt.Errorf("%s has %d rules, not %d", where, len(have), len(want.Rules))
	}

	for i, r := range want.Rules {
		text, err := Text(t.NFProto, r)
		if err != nil {
			return err
		}
		if have[i].Text() != text {
			return fmt.Errorf("rule %d of %s is not as it should be", i+1, where)
		}
	}

	return nil
}

// CheckHook returns an error unless the kernel calls a chain where it should.
func (t Reader) CheckHook(want Chain) error {
	if want.Hook == nil {
		return nil
	}

	base, err := t.Base(want.Name)
	if err != nil {
		return err
	}

	wanted := Base{Hook: *want.Hook, Priority: *want.Priority, Policy: nftables.ChainPolicyAccept}
	if base == nil || *base != wanted {
		return fmt.Errorf("the kernel does not call chain %s of nftables table %s where it should",
			want.Name, t.Table)
	}

	return nil
}

// Has reports whether a rule of a family is among some of the kernel's.
func Has(rules []Rule, nfProto byte, want ...[]expr.Any) (bool, error) {
	text, err := Text(nfProto, slices.Concat(want...))
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.Text() == text }), err
}

func parseRule(body []byte) (table string, r Rule) {
	Attributes(body, func(kind uint16, value []byte) {
		switch {
		case kind == unix.NFTA_RULE_TABLE:
			table = netlink.Text(value)
		case kind == unix.NFTA_RULE_CHAIN:
			r.Chain = netlink.Text(value)
		case kind == unix.NFTA_RULE_HANDLE && len(value) == 8:
			r.Handle = binary.BigEndian.Uint64(value)
		case kind == unix.NFTA_RULE_USERDATA:
			r.Comment = parseComment(value)
		case kind == unix.NFTA_RULE_EXPRESSIONS:
			r.Interface = comparedInterface(value)
			r.Verdict = firstVerdict(value)
			r.expressions = value
		}
	})
	return table, r
}

// comparedInterface returns the name in the comparison that follows a meta expression at the beginning of a
// rule. An interface's name is compared with all its 16 bytes.
func comparedInterface(expressions []byte) (name string) {
	at := 0
	isMeta := false
	netlink.Attributes(expressions, func(_ uint16, expression []byte) {
		kind, data := parseExpression(expression)
		switch {
		case at == 0:
			isMeta = kind == "meta"
		case at == 1 && isMeta && kind == "cmp":
			netlink.Attributes(data, func(kind uint16, value []byte) {
				if kind == unix.NFTA_CMP_DATA && len(dataValue(value)) == unix.IFNAMSIZ {
					name = netlink.Text(dataValue(value))
				}
			})
		}

		at++
	})
	return name
}

// firstVerdict returns the verdict that a rule begins with, nil for none.
func firstVerdict(expressions []byte) (v *expr.Verdict) {
	at := 0
	netlink.Attributes(expressions, func(_ uint16, expression []byte) {
		kind, data := parseExpression(expression)
		if at++; at > 1 || kind != "immediate" {
			return
		}
		netlink.Attributes(data, func(kind uint16, value []byte) {
			if kind == unix.NFTA_IMMEDIATE_DATA {
				v = parseVerdict(value)
			}
		})
	})
	return v
}

// parseExpression returns the kind of an expression and its attributes.
func parseExpression(expression []byte) (kind string, data []byte) {
	netlink.Attributes(expression, func(attribute uint16, value []byte) {
		switch attribute {
		case unix.NFTA_EXPR_NAME:
			kind = netlink.Text(value)
		case unix.NFTA_EXPR_DATA:
			data = value
		}
	})
	return kind, data
}

// Comment returns the user data of a rule with a comment.
func Comment(text string) []byte {
	text = Cut(text)
	data := []byte{0, byte(len(text) + 1)}
	return append(append(data, text...), 0)
}

// Cut shortens a comment to what a rule can have.
func Cut(text string) string { return text[:min(len(text), maxComment)] }

// maxComment is what nft(8) reads at most, without the zero.
const maxComment = 127

// Destination is what a rule compares the destination of packets with, zero where it does not.
type Destination struct {
	Protocol byte
	Address  netip.Addr
	Port     uint16
}

// Destination returns where the packets go that a rule is about. What it compares in another way than by
// value is left out.
func (r Rule) Destination() (d Destination) {
	var loaded func(value []byte)
	netlink.Attributes(r.expressions, func(_ uint16, expression []byte) {
		switch kind, data := parseExpression(expression); kind {
		case "meta", "payload":
			loaded = d.loaded(kind, numbers(data))
		case "cmp":
			if value, ok := equalTo(data); ok && loaded != nil {
				loaded(value)
			}
		default:
			loaded = nil
		}
	})
	return d
}

// loaded returns what takes the value that an expression loads, nil for one that does not matter.
func (d *Destination) loaded(kind string, attributes map[uint16]uint32) func(value []byte) {
	base, at := attributes[unix.NFTA_PAYLOAD_BASE], attributes[unix.NFTA_PAYLOAD_OFFSET]
	size := attributes[unix.NFTA_PAYLOAD_LEN]
	switch {
	case kind == "meta" && attributes[unix.NFTA_META_KEY] == unix.NFT_META_L4PROTO:
		return func(value []byte) { d.Protocol = value[0] }
	case kind == "meta":
		return nil
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && at == 2 && size == 2:
		return func(value []byte) {
			if len(value) == 2 {
				d.Port = binary.BigEndian.Uint16(value)
			}
		}
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER && (at == V4.Destination && size == uint32(V4.Size) ||
		at == V6.Destination && size == uint32(V6.Size)):
		return func(value []byte) { d.Address, _ = netip.AddrFromSlice(value) }
	}
	return nil
}

// equalTo returns the value that a comparison is with, of one that asks for the same.
func equalTo(attributes []byte) (value []byte, ok bool) {
	ok = numbers(attributes)[unix.NFTA_CMP_OP] == unix.NFT_CMP_EQ
	netlink.Attributes(attributes, func(kind uint16, data []byte) {
		if kind == unix.NFTA_CMP_DATA {
			value = dataValue(data)
		}
	})
	return value, ok && len(value) > 0
}

// numbers returns those attributes that are numbers.
func numbers(attributes []byte) map[uint16]uint32 {
	all := map[uint16]uint32{}
	netlink.Attributes(attributes, func(kind uint16, value []byte) {
		if len(value) == 4 {
			all[kind] = binary.BigEndian.Uint32(value)
		}
	})
	return all
}
