package hostnat

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/conntrack"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
)

// Port is a host port of a pod.
type Port struct {
	// HostIP is the address of the node that the port is published on; zero means all of them.
	HostIP   netip.Addr
	HostPort uint16
	// Protocol is "tcp", "udp" or "sctp".
	Protocol string
	Pod      netip.AddrPort
}

func (p Port) String() string {
	host := "*"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	return fmt.Sprintf("host port %s:%d/%s", host, p.HostPort, p.Protocol)
}

// AddPorts publishes the host ports of owner, all or none. A port that another owner has is an error that
// names that owner.
func (t *Table) AddPorts(owner string, ports []Port) error {
	var messages []*netlink.Message
	for set, elements := range t.elementsOf(owner, ports) {
		for part := range slices.Chunk(elements, maxElements) {
			messages = append(messages, nft.AddElements(set, part))
		}
	}

	// The map has another value for the key: somebody else has the port.
	err := t.kernel.Conn.Transact(messages...)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		return t.nameOwner(ports, err)
	}
	if err != nil {
		return fmt.Errorf("publish host ports of %s: %w", owner, err)
	}

	return t.forgetUDP(ports)
}

// maxElements is how many elements with their comments a message has room for: their list is an attribute of
// at most 64 KB.
const maxElements = 200

// elementsOf returns what publishes ports of owner, by set: the kernel acknowledges each message, so that one
// for each port would take ten times as long.
func (t *Table) elementsOf(owner string, ports []Port) map[*nftables.Set][]nftables.SetElement {
	all := map[*nftables.Set][]nftables.SetElement{}
	pods := map[netip.Addr]bool{}
	add := func(s *nftables.Set, e nftables.SetElement) {
		e.Comment = owner
		all[s] = append(all[s], e)
	}

	for _, p := range ports {
		pod := p.Pod.Addr()
		f := t.want.familyOf(pod)
		add(f.mapOf(p), f.portElement(p))
		if !pods[pod] {
			pods[pod] = true
			add(f.hairpin, f.hairpinElement(pod))
		}
	}
	return all
}

// nameOwner returns an error that says who has the port that the kernel refused.
func (t *Table) nameOwner(ports []Port, refused error) error {
	for _, p := range ports {
		f := t.want.familyOf(p.Pod.Addr())
		want := f.portElement(p)
		elements, err := t.kernel.Elements(f.mapOf(p))
		if err != nil {
			return errors.Join(refused, err)
		}

		for _, e := range elements {
			if string(e.Key) == string(want.Key) && string(e.Val) != string(want.Val) {
				return fmt.Errorf("%s is taken by %s", p, e.Comment)
			}
		}
	}

	return fmt.Errorf("publish host ports: %w", refused)
}

// HasPorts returns an error that names the first of the ports that is not published as it should be.
func (t *Table) HasPorts(ports []Port) error {
	// The kernel rearranges a set that has grown some time after the transaction. It is thought to leave
	// elements out of a list that it continues meanwhile, without a sign. What two lists lack is not there.
	if t.listsPorts(ports) == nil {
		return nil
	}
	return t.listsPorts(ports)
}

// listsPorts returns an error unless the maps of host ports, as they are listed now, have all of them.
func (t *Table) listsPorts(ports []Port) error {
	// By map, the value of each key.
	published := map[*nftables.Set]map[string]string{}
	for _, p := range ports {
		f := t.want.familyOf(p.Pod.Addr())
		m := f.mapOf(p)
		if published[m] == nil {
			elements, err := t.kernel.Elements(m)
			if err != nil {
				return err
			}

			published[m] = map[string]string{}
			for _, e := range elements {
				published[m][string(e.Key)] = string(e.Val)
			}
		}

		want := f.portElement(p)
		if published[m][string(want.Key)] != string(want.Val) {
			return fmt.Errorf("%s to %s is not in nftables map %s", p, p.Pod, m.Name)
		}
	}

	return nil
}

// Remove removes every element of owner and every one that leads to its addresses. A table that does not
// exist is success.
func (t *Table) Remove(owner string, addresses []netip.Addr) error {
	unwanted := func(of string, pod netip.Addr) bool {
		return of == owner || slices.Contains(addresses, pod)
	}
	// Every pod with host ports is in a hairpin set: one look for the many pods that have none.
	return t.remove(unwanted, (*family).hairpins)
}

// Keep removes every element whose owner is not valid: CNI's GC.
func (t *Table) Keep(valid func(owner string) bool) error {
	unwanted := func(owner string, _ netip.Addr) bool { return !valid(owner) }
	return t.remove(unwanted, (*family).perPod)
}

// Owners returns the owners of elements, in order.
func (t *Table) Owners() ([]string, error) {
	there, err := t.kernel.HasTable()
	if err != nil || !there {
		return nil, err
	}

	seen := map[string]bool{}
	_, err = t.find(func(owner string, _ netip.Addr) bool {
		seen[owner] = true
		return false
	}, (*family).perPod)
	return slices.Sorted(maps.Keys(seen)), err
}

// remove deletes the unwanted elements in one transaction: for each that deletes, Close waits some 10 ms,
// however many elements it holds. It does nothing when none of the sets in first holds an unwanted one.
func (t *Table) remove(
	unwanted func(owner string, pod netip.Addr) bool, first func(*family) []*nftables.Set,
) error {
	there, err := t.kernel.HasTable()
	if err != nil || !there {
		return err
	}

	for range tries {
		found, err := t.find(unwanted, first)
		if err != nil || len(found) == 0 {
			return err
		}

		found, err = t.find(unwanted, (*family).perPod)
		if err != nil {
			return err
		}

		err = t.deleteElements(found)
		if errors.Is(err, unix.ENOENT) {
			// Another DEL or GC deleted one of them, and the kernel refused the rest with it.
			continue
		}

		if err != nil {
			return fmt.Errorf("delete nftables elements: %w", err)
		}

		return t.forgetUDP(udpPorts(found))
	}

	return fmt.Errorf("delete nftables elements: others keep changing table %s", t.want.table.Name)
}

// selection is some elements of one set.
type selection struct {
	family   *family
	set      *nftables.Set
	elements []nftables.SetElement
}

// find returns the unwanted elements of some sets of each family.
func (t *Table) find(
	unwanted func(owner string, pod netip.Addr) bool, sets func(*family) []*nftables.Set,
) (found []selection, err error) {
	for _, f := range t.want.families {
		for _, set := range sets(f) {
			all, err := t.kernel.Elements(set)
			if err != nil {
				return nil, err
			}

			s := selection{family: f, set: set}
			for _, e := range all {
				if unwanted(e.Comment, f.podOf(set, e)) {
					s.elements = append(s.elements, nftables.SetElement{Key: e.Key, Val: e.Val})
				}
			}

			if len(s.elements) > 0 {
				found = append(found, s)
			}
		}
	}

	return found, nil
}

func (t *Table) deleteElements(found []selection) error {
	var messages []*netlink.Message
	for _, s := range found {
		for part := range slices.Chunk(s.elements, maxElements) {
			messages = append(messages, nft.DeleteElements(s.set, part))
		}
	}
	return t.kernel.Conn.Transact(messages...)
}

// udpPorts returns the UDP host ports among the elements.
func udpPorts(found []selection) (ports []Port) {
	for _, s := range found {
		for _, e := range s.elements {
			if p, ok := s.family.udpPort(s.set, e); ok {
				ports = append(ports, p)
			}
		}
	}
	return ports
}

// forgetUDP deletes the tracked connections to UDP host ports. A client that keeps sending would otherwise
// keep its entry alive without end: past a new pod, or to one that has ended.
func (t *Table) forgetUDP(ports []Port) error {
	var all []conntrack.Port
	for _, p := range ports {
		if p.Protocol == "udp" {
			all = append(all, conntrack.Port{
				Is6:     p.Pod.Addr().Is6(),
				Address: p.HostIP,
				Number:  p.HostPort,
			})
		}
	}
	return conntrack.ForgetUDP(t.kernel.Conn, all)
}
