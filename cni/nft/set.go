package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Elements lists a set, each element once: all that are there from the beginning to the end of the call, and
// perhaps some that come or go meanwhile.
//
// The kernel continues a list of several datagrams by counting: it skips as many elements as it has sent. But
// in between a worker may move the elements to a larger or a smaller table, some time after the transaction
// that has made them more or fewer, and what a transaction deletes is taken out when its generation has begun
// already. Then the list lacks elements or has some twice, without a sign. So a list that may have been
// continued is read until two in a row are the same.
func (t Reader) Elements(s *nftables.Set) ([]nftables.SetElement, error) {
	return untilSame(s.Name, func() (*listing, error) { return t.list(s) })
}

// listTries bounds how often a list is read again that others keep changing.
const listTries = 40

// untilSame calls read until it returns a list that is whole, or the same one twice.
func untilSame(name string, read func() (*listing, error)) ([]nftables.SetElement, error) {
	var last *listing
	for range listTries {
		now, err := read()
		if err != nil {
			return nil, err
		}
		if now.isWhole || last != nil && maps.Equal(now.seen, last.seen) {
			return now.elements, nil
		}

		last = now
	}

	return nil, fmt.Errorf("list nftables set %s: %w", name, netlink.ErrChanging)
}

// listing is a list of a set as the kernel has sent it.
type listing struct {
	elements []nftables.SetElement
	seen     map[string]bool
	// isWhole says that it came in one datagram, while there was no transaction.
	isWhole bool
}

// add adds those elements that are not there yet.
func (l *listing) add(elements []nftables.SetElement) {
	var buffer []byte
	for _, e := range elements {
		buffer = appendContent(buffer[:0], e)
		if !l.seen[string(buffer)] {
			l.seen[string(buffer)] = true
			l.elements = append(l.elements, e)
		}
	}
}

// appendContent appends what tells elements apart: all of them, since an interval may end where another one
// begins, and an element may be replaced by one with another value.
func appendContent(b []byte, e nftables.SetElement) []byte {
	for _, part := range [][]byte{e.Key, e.KeyEnd, e.Val} {
		b = append(append(b, byte(len(part))), part...)
	}
	if e.IntervalEnd {
		b = append(b, 1)
	}
	if v := e.VerdictData; v != nil {
		b = binary.BigEndian.AppendUint32(b, uint32(v.Kind))
		b = append(append(b, v.Chain...), 0)
	}
	return append(append(b, 0), e.Comment...)
}

// wholeSize is a size below which a list was not continued: the smallest datagram that the kernel begins is a
// page without what a packet buffer ends with, at least 3,700 bytes, so that another element had room in it.
const wholeSize = 3 << 10

// list reads a set once.
func (t Reader) list(s *nftables.Set) (*listing, error) {
	before, err := t.Generation()
	if err != nil {
		return nil, err
	}

	l := &listing{seen: map[string]bool{}}
	size := 0
	m := t.request("list nftables set "+s.Name, unix.NFT_MSG_GETSETELEM).
		String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	err = t.Conn.Stream(m, func(_ uint16, body []byte) {
		size += len(body)
		l.add(ParseElements(bytes.Clone(body)))
	})
	if err != nil {
		return nil, err
	}

	after, err := t.Generation()
	l.isWhole = size < wholeSize && before == after
	return l, err
}

// lookups is how many elements are asked for at once. Each answer takes about 1,000 bytes of the socket's
// buffer, which has some 200,000 (net.core.rmem_default).
const lookups = 64

// Lookup returns those elements of a set that have one of some keys, by key. The kernel finds each by its
// hash, whatever others there are and however they come and go. A set that is not there has none.
func (t Reader) Lookup(s *nftables.Set, keys [][]byte) (map[string]nftables.SetElement, error) {
	found := map[string]nftables.SetElement{}
	for part := range slices.Chunk(keys, lookups) {
		// Of several keys in one message, the kernel ends with the first one that is not there.
		var messages []*netlink.Message
		for _, key := range part {
			m := t.request("look up an element of nftables set "+s.Name, unix.NFT_MSG_GETSETELEM).
				String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
			messages = append(messages, appendElements(m, []nftables.SetElement{{Key: key}}))
		}

		errs, err := t.Conn.Ask(messages, func(_ int, _ uint16, body []byte) {
			for _, e := range ParseElements(bytes.Clone(body)) {
				found[string(e.Key)] = e
			}
		})
		if err != nil {
			return nil, err
		}
		for _, err := range errs {
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return nil, err
			}
		}
	}

	return found, nil
}

// ParseElements reads a part of a list: key, end, value or verdict, and comment of each element.
func ParseElements(body []byte) (all []nftables.SetElement) {
	Attributes(body, func(kind uint16, list []byte) {
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
		case nftables.NFTA_SET_ELEM_KEY_END:
			e.KeyEnd = dataValue(value)
		case unix.NFTA_SET_ELEM_FLAGS:
			isLong := len(value) == 4
			e.IntervalEnd = isLong && binary.BigEndian.Uint32(value)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_DATA:
			e.Val = dataValue(value)
			e.VerdictData = parseVerdict(value)
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = parseComment(value)
		}
	})
	return e
}
