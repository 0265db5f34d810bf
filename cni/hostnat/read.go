package hostnat

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// nfgenmsgSize is the size of a struct nfgenmsg, which begins every message of netfilter.
const nfgenmsgSize = 4

func nfgenmsg(family byte) []byte { return []byte{family, unix.NFNETLINK_V0, 0, 0} }

// kernel reads the table of one network, and what is tracked of its connections.
type kernel struct {
	conn  *netlink.Conn
	table string
}

// request begins a request about this table, whose name is the first attribute of all of them.
func (k kernel) request(op string, kind uint16) *netlink.Message {
	const nftables = unix.NFNL_SUBSYS_NFTABLES << 8
	return netlink.NewMessage(op, nftables|kind, 0, nfgenmsg(unix.NFPROTO_INET)).
		String(unix.NFTA_TABLE_NAME, k.table)
}

// hasTable reports whether the table exists.
func (k kernel) hasTable() (bool, error) {
	m := k.request("look up nftables table "+k.table, unix.NFT_MSG_GETTABLE)
	err := k.conn.Get(m, func(uint16, []byte) {})
	if netlink.IsNotExist(err) {
		return false, nil
	}
	return err == nil, err
}

// hasMarker reports whether the rules are those of a configuration, by the name of its marker. Somebody may
// have flushed the rules and left the chains: then the marker has no rule either.
func (k kernel) hasMarker(name string) (bool, error) {
	m := k.request("look up nftables chain "+name, unix.NFT_MSG_GETCHAIN).
		String(unix.NFTA_CHAIN_NAME, name)
	var marker chainInfo
	err := k.conn.Get(m, func(_ uint16, body []byte) { marker = parseChain(body) })
	if netlink.IsNotExist(err) {
		return false, nil
	}
	return err == nil && marker.rules == 1, err
}

// countRules returns how many rules each chain of the table has.
func (k kernel) countRules() (map[string]int, error) {
	count := map[string]int{}
	m := k.request("list nftables chains of "+k.table, unix.NFT_MSG_GETCHAIN)
	err := k.conn.Dump(m, func(_ uint16, body []byte) {
		// The kernel lists those of all tables.
		if c := parseChain(body); c.table == k.table {
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
}

func parseChain(body []byte) (c chainInfo) {
	attributes(body, func(kind uint16, value []byte) {
		switch {
		case kind == unix.NFTA_CHAIN_TABLE:
			c.table = netlink.Text(value)
		case kind == unix.NFTA_CHAIN_NAME:
			c.name = netlink.Text(value)
		case kind == unix.NFTA_CHAIN_USE && len(value) == 4:
			c.rules = int(binary.BigEndian.Uint32(value))
		}
	})
	return c
}

// generation returns the number of the last transaction in the network namespace.
func (k kernel) generation() (id uint32, err error) {
	const kind = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN
	m := netlink.NewMessage("look up nftables generation", kind, 0, nfgenmsg(unix.NFPROTO_UNSPEC))
	err = k.conn.Get(m, func(_ uint16, body []byte) {
		attributes(body, func(kind uint16, value []byte) {
			if kind == unix.NFTA_GEN_ID && len(value) == 4 {
				id = binary.BigEndian.Uint32(value)
			}
		})
	})
	return id, err
}

// elements lists a set. The kernel continues a list of several messages by counting, so elements that another
// process deletes meanwhile hide others that stay: the list is read again when there was a transaction.
func (k kernel) elements(s *nftables.Set) ([]nftables.SetElement, error) {
	for range tries {
		before, err := k.generation()
		if err != nil {
			return nil, err
		}

		var all []nftables.SetElement
		m := k.request("list nftables set "+s.Name, unix.NFT_MSG_GETSETELEM).
			String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		err = k.conn.Dump(m, func(_ uint16, body []byte) { all = append(all, parseElements(body)...) })
		if err != nil {
			return nil, err
		}

		after, err := k.generation()
		if err != nil || before == after {
			return all, err
		}
	}

	return nil, fmt.Errorf("list nftables set %s: %w", s.Name, netlink.ErrChanging)
}

// attributes calls visit with the attributes behind the header of a message.
func attributes(body []byte, visit func(kind uint16, value []byte)) {
	if len(body) >= nfgenmsgSize {
		netlink.Attributes(body[nfgenmsgSize:], visit)
	}
}

// parseElements reads a part of a list: key, value and comment of each element.
func parseElements(body []byte) (all []nftables.SetElement) {
	attributes(body, func(kind uint16, list []byte) {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		netlink.Attributes(list, func(_ uint16, element []byte) {
			all = append(all, parseElement(element))
		})
	})
	return all
}

func parseElement(element []byte) (e nftables.SetElement) {
	netlink.Attributes(element, func(kind uint16, value []byte) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = dataValue(value)
		case unix.NFTA_SET_ELEM_DATA:
			e.Val = dataValue(value)
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = parseComment(value)
		}
	})
	return e
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
