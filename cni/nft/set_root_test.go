package nft_test

import (
	"encoding/binary"
	"slices"
	"sync"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// set is a set of numbers in a network namespace.
type set struct {
	t     *testing.T
	netns string
	*nftables.Set
}

func newSet(t *testing.T) set {
	t.Helper()
	testenv.Root(t)
	table := &nftables.Table{Name: "test", Family: nftables.TableFamilyINet}
	s := set{t, testenv.Netns(t), &nftables.Set{Table: table, Name: "s", KeyType: nftables.TypeIPAddr}}
	s.in(func(nft.Reader) error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.AddTable(table)
		if err := c.AddSet(s.Set, nil); err != nil {
			return err
		}
		return c.Flush()
	})
	return s
}

// in calls f in the namespace, with a connection of its own.
func (s set) in(f func(nft.Reader) error) {
	s.t.Helper()
	err := namespace.Do(func() error { return nft.Read(unix.NFPROTO_INET, s.Table.Name, f) }, s.netns)
	if err != nil {
		s.t.Error(err)
	}
}

// change changes elements, of which a message holds some.
func (s set) change(r nft.Reader, of func(*nftables.Set, []nftables.SetElement) *netlink.Message,
	numbers []uint32,
) error {
	var messages []*netlink.Message
	for part := range slices.Chunk(numbers, 1000) {
		var elements []nftables.SetElement
		for _, n := range part {
			elements = append(elements, nftables.SetElement{Key: key(n)})
		}
		messages = append(messages, of(s.Set, elements))
	}
	return r.Conn.Transact(messages...)
}

func key(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// span returns the numbers from one to another one.
func span(from, to uint32) (all []uint32) {
	for n := from; n < to; n++ {
		all = append(all, n)
	}
	return all
}

func TestElementsAreLookedUpByTheirKeys(t *testing.T) {
	s := newSet(t)
	s.in(func(r nft.Reader) error {
		if err := s.change(r, nft.AddElements, span(100, 300)); err != nil {
			return err
		}

		// Those that are there come behind one that is not, and before others.
		var keys [][]byte
		for _, n := range span(0, 400) {
			keys = append(keys, key(n), key(n))
		}
		found, err := r.Lookup(s.Set, keys)
		for _, n := range span(0, 400) {
			e, there := found[string(key(n))]
			if there != (n >= 100 && n < 300) || there && string(e.Key) != string(key(n)) {
				t.Errorf("%d is there: %v, %+v", n, there, e)
			}
		}
		if err != nil {
			return err
		}

		missing := &nftables.Set{Table: s.Table, Name: "missing"}
		if found, err := r.Lookup(missing, keys[:2]); err != nil || len(found) > 0 {
			t.Errorf("a set that is not there has %v, %v", found, err)
		}
		if found, err := r.Lookup(s.Set, [][]byte{{1}}); err == nil {
			t.Errorf("a key of another length leads to %v", found)
		}
		if found, err := r.Lookup(s.Set, nil); err != nil || len(found) > 0 {
			t.Errorf("no key leads to %v, %v", found, err)
		}
		return nil
	})
}

// The kernel moves the elements of a set to another table when there are three times as many as before, and
// back again, after the transaction that has made them so many.
func TestElementsThatStayAreFoundWhileTheKernelMovesThem(t *testing.T) {
	const stay, rounds = 2100, 60
	s := newSet(t)
	s.in(func(r nft.Reader) error { return s.change(r, nft.AddElements, span(0, stay)) })

	var others sync.WaitGroup
	done := make(chan struct{})
	others.Go(func() {
		s.in(func(r nft.Reader) error {
			for {
				select {
				case <-done:
					return nil
				default:
				}
				for _, of := range []func(*nftables.Set, []nftables.SetElement) *netlink.Message{
					nft.AddElements,
					nft.DeleteElements,
				} {
					if err := s.change(r, of, span(10_000, 17_000)); err != nil {
						return err
					}
				}
			}
		})
	})

	var keys [][]byte
	for _, n := range span(0, stay) {
		keys = append(keys, key(n))
	}

	s.in(func(r nft.Reader) error {
		defer close(done)
		for range rounds {
			found, err := r.Lookup(s.Set, keys)
			if err != nil {
				return err
			}
			if len(found) != stay {
				t.Errorf("%d elements are found, of %d that stay", len(found), stay)
			}
		}
		return nil
	})
	others.Wait()
}

func TestListsAreWholeWhileTheKernelMovesElements(t *testing.T) {
	const stay, rounds = 2100, 40
	s := newSet(t)
	s.in(func(r nft.Reader) error {
		if err := s.change(r, nft.AddElements, span(0, stay)); err != nil {
			return err
		}

		// Each time, the list begins right after a transaction that makes the kernel move them.
		for range rounds {
			for _, of := range []func(*nftables.Set, []nftables.SetElement) *netlink.Message{
				nft.AddElements,
				nft.DeleteElements,
			} {
				if err := s.change(r, of, span(10_000, 17_000)); err != nil {
					return err
				}

				elements, err := r.Elements(s.Set)
				if err != nil {
					return err
				}
				if n := distinct(elements, stay); n != stay {
					t.Errorf("%d of %d elements that stay are listed", n, stay)
				}
			}
		}
		return nil
	})
}

// distinct counts the numbers below a limit, once each; one that comes twice makes the count too large.
func distinct(elements []nftables.SetElement, limit uint32) (count uint32) {
	seen := map[string]bool{}
	for _, e := range elements {
		if binary.BigEndian.Uint32(e.Key) < limit {
			count++
		}
		if seen[string(e.Key)] {
			count += limit
		}
		seen[string(e.Key)] = true
	}
	return count
}
