package netlink_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// inNamespace runs a test with a connection and a map of ports to ports in a new network namespace.
func inNamespace(t *testing.T, test func(t *testing.T, c *netlink.Conn, ports *nftables.Set)) {
	t.Helper()
	testenv.Root(t)
	err := namespace.Do(func() error {
		table := &nftables.Table{Name: "test", Family: nftables.TableFamilyINet}
		ports := &nftables.Set{
			Table:    table,
			Name:     "ports",
			IsMap:    true,
			KeyType:  nftables.TypeInetService,
			DataType: nftables.TypeInetService,
		}
		if err := makeMap(ports); err != nil {
			return err
		}

		c, err := netlink.Open(netlink.Netfilter)
		if err != nil {
			return err
		}
		test(t, c, ports)
		return c.Close()
	}, testenv.Netns(t))
	if err != nil {
		t.Fatal(err)
	}
}

func makeMap(s *nftables.Set) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.AddTable(s.Table)
	if err := c.AddSet(s, nil); err != nil {
		return err
	}
	return c.Flush()
}

// element leads a port to another one. Its owner is as long as that of a pod in hostnat.
func element(from, to int) nftables.SetElement {
	return nftables.SetElement{
		Key:     binary.BigEndian.AppendUint16(nil, uint16(from)),
		Val:     binary.BigEndian.AppendUint16(nil, uint16(to)),
		Comment: strings.Repeat("f", 64) + "/eth0",
	}
}

// reader reads the table of a map.
func reader(c *netlink.Conn, ports *nftables.Set) nft.Reader {
	return nft.Reader{Conn: c, NFProto: unix.NFPROTO_INET, Table: ports.Table.Name}
}

// elements returns how many the map has in the kernel.
func elements(t *testing.T, c *netlink.Conn, ports *nftables.Set) int {
	t.Helper()
	all, err := reader(c, ports).Elements(ports)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestATransactionIsAllOrNothing(t *testing.T) {
	inNamespace(t, func(t *testing.T, c *netlink.Conn, ports *nftables.Set) {
		add := func(from, to int) *netlink.Message {
			return nft.AddElements(ports, []nftables.SetElement{element(from, to)})
		}
		if err := c.Transact(add(1, 1)); err != nil {
			t.Fatal(err)
		}

		// Port 1 leads elsewhere already, and port 7 is not there.
		for _, refused := range []struct {
			message *netlink.Message
			errno   []error
			want    string
		}{
			{add(1, 2), []error{unix.EEXIST, unix.EBUSY}, "add elements to nftables set ports: "},
			{
				nft.DeleteElements(ports, []nftables.SetElement{{Key: element(7, 7).Key}}),
				[]error{unix.ENOENT},
				"delete elements of nftables set ports: ",
			},
		} {
			err := c.Transact(add(2, 2), refused.message, add(3, 3))
			isErrno := slices.ContainsFunc(refused.errno, func(e error) bool { return errors.Is(err, e) })
			if !isErrno || !strings.HasPrefix(err.Error(), refused.want) {
				t.Errorf("%v, want %v, and its name", err, refused.errno)
			}
			if n := elements(t, c, ports); n != 1 {
				t.Errorf("after %v, %d elements are there, want the first one", err, n)
			}
		}

		// What was said of the refused ones is not taken for an answer to those that follow.
		if err := errors.Join(c.Transact(add(2, 2), add(3, 3)), c.Transact(add(4, 4))); err != nil {
			t.Error(err)
		}
		if n := elements(t, c, ports); n != 4 {
			t.Errorf("%d elements are there, want 4", n)
		}
	})
}

func TestATransactionMayBeLarge(t *testing.T) {
	const count, part = 3000, 200
	inNamespace(t, func(t *testing.T, c *netlink.Conn, ports *nftables.Set) {
		var all []nftables.SetElement
		for i := range count {
			all = append(all, element(i, i))
		}

		var add, remove []*netlink.Message
		for some := range slices.Chunk(all, part) {
			add = append(add, nft.AddElements(ports, some))
			remove = append(remove, nft.DeleteElements(ports, some))
		}

		if err := c.Transact(add...); err != nil {
			t.Fatal(err)
		}
		if n := elements(t, c, ports); n != count {
			t.Errorf("%d elements are there, want %d", n, count)
		}

		if err := c.Transact(remove...); err != nil {
			t.Fatal(err)
		}
		if n := elements(t, c, ports); n != 0 {
			t.Errorf("%d elements are left", n)
		}
	})
}

// What is there is looked up in a generation; who changes it in the next one must not change something else.
func TestATransactionIsOfItsGeneration(t *testing.T) {
	inNamespace(t, func(t *testing.T, c *netlink.Conn, ports *nftables.Set) {
		add := func(n int) *netlink.Message {
			return nft.AddElements(ports, []nftables.SetElement{element(n, n)})
		}
		generation, err := reader(c, ports).Generation()
		if err != nil {
			t.Fatal(err)
		}

		if err := c.TransactIn(generation, add(1)); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := c.TransactIn(generation, add(2), add(3)); !errors.Is(err, unix.ERESTART) {
				t.Errorf("after another transaction: %v", err)
			}
		}
		if err := c.Transact(add(4)); err != nil {
			t.Error(err)
		}
		if n := elements(t, c, ports); n != 2 {
			t.Errorf("%d elements are there, want 1 and 4", n)
		}
	})
}
