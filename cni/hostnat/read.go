package hostnat

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// What every call asks goes by a plain socket, which costs less than one of Go's poller. Its buffer lets the
// kernel send long lists in few parts.

// question is a request about this table, whose name is the first attribute of all of them.
func (t *Table) question(what string, kind uint16) *rtnl.Message {
	return rtnl.NewMessage(
		what,
		unix.NFNL_SUBSYS_NFTABLES<<8|kind,
		[]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0},
	).String(unix.NFTA_TABLE_NAME, t.table.Name)
}

// has reports whether the kernel knows what m asks for.
func (t *Table) has(m *rtnl.Message) (bool, error) {
	err := t.kernel.Get(m, func(uint16, []byte) {})
	if rtnl.Gone(err) {
		return false, nil
	}
	return err == nil, err
}

func (t *Table) there() (bool, error) {
	return t.has(t.question("look up nftables table "+t.table.Name, unix.NFT_MSG_GETTABLE))
}

// fits asks for the marker. Somebody may have flushed the rules and left the chains: then the marker has no
// rule either.
func (t *Table) fits() (bool, error) {
	m := t.question("look up nftables chain "+t.marker(), unix.NFT_MSG_GETCHAIN).String(unix.NFTA_CHAIN_NAME,
		t.marker())
	whole := false
	err := t.kernel.Get(m, func(_ uint16, body []byte) {
		_, rules := parseChain(body)
		whole = rules == 1
	})
	if rtnl.Gone(err) {
		return false, nil
	}
	return err == nil && whole, err
}

// tableOf is the table that a chain is in.
func tableOf(body []byte) (name string) {
	visit(body, func(kind uint16, value []byte) {
		if kind == unix.NFTA_CHAIN_TABLE {
			name = string(bytes.TrimRight(value, "\x00"))
		}
	})
	return name
}

// parseChain reads the name of a chain and how many rules it has. A chain that others jump to counts them as
// well.
func parseChain(body []byte) (name string, uses int) {
	visit(body, func(kind uint16, value []byte) {
		switch {
		case kind == unix.NFTA_CHAIN_NAME:
			name = string(bytes.TrimRight(value, "\x00"))
		case kind == unix.NFTA_CHAIN_USE && len(value) == 4:
			uses = int(binary.BigEndian.Uint32(value))
		}
	})
	return name, uses
}

// generation is the number of the last transaction of the namespace.
func (t *Table) generation() (id uint32, err error) {
	m := rtnl.NewMessage(
		"look up nftables generation",
		unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN,
		[]byte{unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	)

	err = t.kernel.Get(m, func(_ uint16, body []byte) {
		visit(body, func(kind uint16, value []byte) {
			if kind == unix.NFTA_GEN_ID && len(value) == 4 {
				id = binary.BigEndian.Uint32(value)
			}
		})
	})

	return id, err
}

// elements lists a set. A list that takes several messages goes on where it was by counting, so elements that
// another process deletes meanwhile hide others which stay: it is read again when there was a transaction.
func (t *Table) elements(s *nftables.Set) ([]nftables.SetElement, error) {
	for range tries {
		before, err := t.generation()
		if err != nil {
			return nil, err
		}

		var all []nftables.SetElement
		err = t.kernel.Dump(t.question("list nftables set "+s.Name, unix.NFT_MSG_GETSETELEM).String(
			unix.NFTA_SET_ELEM_LIST_SET,
			s.Name,
		), func(_ uint16, body []byte) {
			all = append(all, parseElements(body)...)
		})
		if err != nil {
			return nil, err
		}

		after, err := t.generation()
		if err != nil || before == after {
			return all, err
		}
	}

	return nil, fmt.Errorf("list nftables set %s: %w", s.Name, rtnl.ErrChanging)
}

// visit walks the attributes behind the header of a message.
func visit(body []byte, f func(kind uint16, value []byte)) {
	if len(body) >= nfgenmsgSize {
		rtnl.Attributes(body[nfgenmsgSize:], f)
	}
}

// parseElements reads a part of a list: key, value and comment of each element.
func parseElements(body []byte) (all []nftables.SetElement) {
	visit(body, func(kind uint16, list []byte) {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}

		rtnl.Attributes(list, func(_ uint16, element []byte) {
			var e nftables.SetElement
			rtnl.Attributes(element, func(kind uint16, value []byte) {
				switch kind {
				case unix.NFTA_SET_ELEM_KEY:
					e.Key = data(value)
				case unix.NFTA_SET_ELEM_DATA:
					e.Val = data(value)
				case unix.NFTA_SET_ELEM_USERDATA:
					e.Comment = comment(value)
				}
			})

			all = append(all, e)
		})
	})

	return all
}

// data is the value in a nested NFTA_DATA_VALUE.
func data(nest []byte) (value []byte) {
	rtnl.Attributes(nest, func(kind uint16, v []byte) {
		if kind == unix.NFTA_DATA_VALUE {
			value = v
		}
	})
	return value
}

// comment finds the comment in user data: a byte for the type (0), one for the length, and the text with a
// zero (libnftnl, udata.h).
func comment(userdata []byte) string {
	for len(userdata) >= 2 {
		kind, size := userdata[0], int(userdata[1])
		if userdata = userdata[2:]; size > len(userdata) {
			break
		}
		if kind == 0 {
			return string(bytes.TrimSuffix(userdata[:size], []byte{0}))
		}
		userdata = userdata[size:]
	}
	return ""
}
