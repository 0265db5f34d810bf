package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/prefix"
)

// Rule says which routing table is for what an address sends (ip rule: "from A lookup T").
type Rule struct {
	Src   netip.Prefix
	Table int
	// Priority 0 is the kernel's choice: before the rules that are there.
	Priority int
}

// lookUp is FR_ACT_TO_TBL of <linux/fib_rules.h>.
const lookUp = 1

// NewRule adds a rule; IsExist(err) when it is there.
func NewRule(r Rule) *netlink.Message {
	op := fmt.Sprintf("add rule from %s to table %d", r.Src, r.Table)
	return r.message(op, unix.RTM_NEWRULE, netlink.Create|netlink.Excl)
}

// DeleteRule deletes a rule; IsNotExist(err) when there is none.
func DeleteRule(r Rule) *netlink.Message {
	op := fmt.Sprintf("delete rule from %s to table %d", r.Src, r.Table)
	return r.message(op, unix.RTM_DELRULE, 0)
}

// message returns a struct fib_rule_hdr with the attributes of the rule.
func (r Rule) message(op string, kind, flags uint16) *netlink.Message {
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = family(r.Src.Addr())
	header[2] = byte(r.Src.Bits())
	header[7] = lookUp
	m := netlink.NewMessage(op, kind, flags, header).
		Bytes(unix.FRA_SRC, r.Src.Addr().AsSlice()).
		Uint32(unix.FRA_TABLE, uint32(r.Table))
	if r.Priority > 0 {
		m.Uint32(unix.FRA_PRIORITY, uint32(r.Priority))
	}
	return m
}

// Rules lists the rules of both families. Src is the zero Prefix in a rule that is for all sources.
func (c *Conn) Rules() (all []Rule, err error) {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		header := make([]byte, unix.SizeofRtMsg)
		header[0] = family
		m := netlink.NewMessage("list rules", unix.RTM_GETRULE, 0, header)
		err := c.Dump(m, func(_ uint16, body []byte) {
			if len(body) >= unix.SizeofRtMsg {
				all = append(all, parseRule(body))
			}
		})
		if err != nil {
			return nil, err
		}
	}

	return all, nil
}

func parseRule(body []byte) (r Rule) {
	r.Table = int(body[4])
	netlink.Attributes(body[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.FRA_SRC:
			r.Src, _ = prefixOf(value, body[2])
		case len(value) != 4:
		case kind == unix.FRA_TABLE:
			r.Table = int(native.Uint32(value))
		case kind == unix.FRA_PRIORITY:
			r.Priority = int(native.Uint32(value))
		}
	})
	return r
}

func prefixOf(address []byte, bits byte) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(address)
	p := netip.PrefixFrom(a, int(bits))
	return p, ok && p.IsValid()
}

// From returns the rule by which what an address sends is looked up in a table.
func From(a netip.Addr, table int) Rule { return Rule{Src: prefix.Single(a), Table: table} }
