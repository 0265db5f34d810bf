package nft

import (
	"bytes"
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// nfgenmsgSize is the size of a struct nfgenmsg, which begins every message of netfilter.
const nfgenmsgSize = 4

// Header returns a struct nfgenmsg.
func Header(family byte) []byte { return []byte{family, unix.NFNETLINK_V0, 0, 0} }

// Reader reads one table.
type Reader struct {
	Conn *netlink.Conn
	// NFProto is the family of the table: NFPROTO_INET, NFPROTO_IPV4, ...
	NFProto byte
	Table   string
}

// Read calls f with a reader of a table, on a connection of its own.
func Read(nfProto byte, table string, f func(Reader) error) error {
	conn, err := netlink.Open(netlink.Netfilter)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()

	return f(Reader{Conn: conn, NFProto: nfProto, Table: table})
}

// request begins a request about this table, whose name is the first attribute of all of them.
func (t Reader) request(op string, kind uint16) *netlink.Message {
	const nftables = unix.NFNL_SUBSYS_NFTABLES << 8
	return netlink.NewMessage(op, nftables|kind, 0, Header(t.NFProto)).
		String(unix.NFTA_TABLE_NAME, t.Table)
}

// HasTable reports whether the table exists.
func (t Reader) HasTable() (bool, error) {
	m := t.request("look up nftables table "+t.Table, unix.NFT_MSG_GETTABLE)
	err := t.Conn.Get(m, func(uint16, []byte) {})
	if netlink.IsNotExist(err) {
		return false, nil
	}
	return err == nil, err
}

// Tables returns the names of the tables of the family.
func (t Reader) Tables() (names []string, err error) {
	const kind = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE
	m := netlink.NewMessage("list nftables tables", kind, 0, Header(t.NFProto))
	err = t.Conn.Dump(m, func(_ uint16, body []byte) {
		Attributes(body, func(kind uint16, value []byte) {
			if kind == unix.NFTA_TABLE_NAME {
				names = append(names, netlink.Text(value))
			}
		})
	})
	return names, err
}

// CountOf returns how many rules a chain has, those that jump to it included; -1 when there is no such chain.
func (t Reader) CountOf(chain string) (int, error) {
	m := t.request("look up nftables chain "+chain, unix.NFT_MSG_GETCHAIN).
		String(unix.NFTA_CHAIN_NAME, chain)
	var found chainInfo
	err := t.Conn.Get(m, func(_ uint16, body []byte) { found = parseChain(body) })
	if netlink.IsNotExist(err) {
		return -1, nil
	}
	return found.rules, err
}

// Base returns the hook of a chain; of one that others lead to, and of one that is not there, nil.
func (t Reader) Base(chain string) (*Base, error) {
	m := t.request("look up nftables chain "+chain, unix.NFT_MSG_GETCHAIN).
		String(unix.NFTA_CHAIN_NAME, chain)
	var found chainInfo
	err := t.Conn.Get(m, func(_ uint16, body []byte) { found = parseChain(body) })
	if netlink.IsNotExist(err) {
		return nil, nil
	}
	return found.base, err
}

// Base is where the kernel calls a chain, and what becomes of a packet that no rule decides about.
type Base struct {
	Hook     nftables.ChainHook
	Priority nftables.ChainPriority
	Policy   nftables.ChainPolicy
}

func parseHook(nest []byte) *Base {
	b := &Base{}
	netlink.Attributes(nest, func(kind uint16, value []byte) {
		switch {
		case len(value) != 4:
		case kind == unix.NFTA_HOOK_HOOKNUM:
			b.Hook = nftables.ChainHook(binary.BigEndian.Uint32(value))
		case kind == unix.NFTA_HOOK_PRIORITY:
			b.Priority = nftables.ChainPriority(int32(binary.BigEndian.Uint32(value)))
		}
	})
	return b
}

// CountRules returns how many rules each chain of the table has.
func (t Reader) CountRules() (map[string]int, error) {
	count := map[string]int{}
	m := t.request("list nftables chains of "+t.Table, unix.NFT_MSG_GETCHAIN)
	err := t.Conn.Dump(m, func(_ uint16, body []byte) {
		// The kernel lists those of all tables.
		if c := parseChain(body); c.table == t.Table {
			count[c.name] = c.rules
		}
	})
	return count, err
}

// chainInfo is what the kernel says about a chain.
type chainInfo struct {
	table string
	name  string
	// rules counts the chain's own, and those that jump to it.
	rules int
	base  *Base
}

func parseChain(body []byte) (c chainInfo) {
	policy := nftables.ChainPolicyAccept
	Attributes(body, func(kind uint16, value []byte) {
		switch {
		case kind == unix.NFTA_CHAIN_TABLE:
			c.table = netlink.Text(value)
		case kind == unix.NFTA_CHAIN_NAME:
			c.name = netlink.Text(value)
		case kind == unix.NFTA_CHAIN_USE && len(value) == 4:
			c.rules = int(binary.BigEndian.Uint32(value))
		case kind == unix.NFTA_CHAIN_HOOK:
			c.base = parseHook(value)
		case kind == unix.NFTA_CHAIN_POLICY && len(value) == 4:
			policy = nftables.ChainPolicy(binary.BigEndian.Uint32(value))
		}
	})
	if c.base != nil {
		c.base.Policy = policy
	}
	return c
}

// Generation returns the number of the last transaction in the network namespace.
func (t Reader) Generation() (id uint32, err error) {
	const kind = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN
	m := netlink.NewMessage("look up nftables generation", kind, 0, Header(unix.NFPROTO_UNSPEC))
	err = t.Conn.Get(m, func(_ uint16, body []byte) {
		Attributes(body, func(kind uint16, value []byte) {
			if kind == unix.NFTA_GEN_ID && len(value) == 4 {
				id = binary.BigEndian.Uint32(value)
			}
		})
	})
	return id, err
}

// Attributes calls visit with the attributes behind the header of a message.
func Attributes(body []byte, visit func(kind uint16, value []byte)) {
	if len(body) >= nfgenmsgSize {
		netlink.Attributes(body[nfgenmsgSize:], visit)
	}
}

// dataValue returns the value in a nested NFTA_DATA_VALUE.
func dataValue(nest []byte) (data []byte) {
	netlink.Attributes(nest, func(kind uint16, value []byte) {
		if kind == unix.NFTA_DATA_VALUE {
			data = value
		}
	})
	return data
}

// parseVerdict returns the verdict in a nested NFTA_DATA_VERDICT, nil for data of another kind.
func parseVerdict(nest []byte) (v *expr.Verdict) {
	netlink.Attributes(nest, func(kind uint16, value []byte) {
		if kind != unix.NFTA_DATA_VERDICT {
			return
		}
		v = &expr.Verdict{}
		netlink.Attributes(value, func(kind uint16, value []byte) {
			switch {
			case kind == unix.NFTA_VERDICT_CHAIN:
				v.Chain = netlink.Text(value)
			case kind == unix.NFTA_VERDICT_CODE && len(value) == 4:
				v.Kind = expr.VerdictKind(int32(binary.BigEndian.Uint32(value)))
			}
		})
	})
	return v
}

// parseComment finds the comment in user data: a byte for the type (0), one for the length, and the text with
// a zero (libnftnl, udata.h).
func parseComment(userdata []byte) string {
	for len(userdata) >= 2 {
		kind := userdata[0]
		size := int(userdata[1])
		userdata = userdata[2:]
		if size > len(userdata) {
			break
		}
		if kind == 0 {
			return string(bytes.TrimSuffix(userdata[:size], []byte{0}))
		}

		userdata = userdata[size:]
	}

	return ""
}
