package hostnat

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
)

// unwanted reports whether an element with an owner, which leads to a pod, is to go.
type unwanted func(owner string, pod netip.Addr) bool

// endOf selects what ends with an attachment: what it owns, and what leads to addresses that it holds.
func endOf(owner string, addresses []netip.Addr) unwanted {
	return func(of string, pod netip.Addr) bool { return of == owner || slices.Contains(addresses, pod) }
}

// RemovePorts removes those elements of owner that publish some ports, and those that lead to its addresses.
// Each is looked up by its key, so that it does not matter how many others there are, and one that somebody
// else has meanwhile stays. It returns the UDP ports that are gone; the caller forgets their connections.
func (t *Table) RemovePorts(owner string, ports []Port, addresses []netip.Addr) (gone []Port, err error) {
	due := endOf(owner, addresses)
	found, err := lookUp(t.kernel, t.want.named(owner, ports, addresses), due)
	if err != nil {
		return nil, err
	}

	// An owner that held one of the addresses before, and of whom nothing is on record, has left an element.
	// Only a list finds the others.
	if slices.ContainsFunc(found, func(s selection) bool { return s.isOfOthers(owner) }) {
		return t.removeListed(due)
	}

	return t.removeFound(found, due)
}

// Remove removes every element of owner and every one that leads to its addresses, which it finds by lists.
// A table that does not exist is success. It returns what RemovePorts does.
func (t *Table) Remove(owner string, addresses []netip.Addr) (gone []Port, err error) {
	// Every pod with host ports is in a hairpin set: one look for the many pods that have none.
	due := endOf(owner, addresses)
	found, err := t.find(due, (*family).hairpins)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return t.removeListed(due)
}

// Keep removes every element whose owner is not valid: CNI's GC. It returns what RemovePorts does.
func (t *Table) Keep(valid func(owner string) bool) (gone []Port, err error) {
	return t.removeListed(func(owner string, _ netip.Addr) bool { return !valid(owner) })
}

// LeadsTo reports whether one of some addresses is that of a pod with host ports: such a one is in a hairpin
// set.
func (t *Table) LeadsTo(addresses []netip.Addr) (bool, error) {
	everyones := func(string, netip.Addr) bool { return true }
	found, err := lookUp(t.kernel, t.want.named("", nil, addresses), everyones)
	return len(found) > 0, err
}

// Owners returns the owners of elements, in order.
func (t *Table) Owners() ([]string, error) {
	seen := map[string]bool{}
	_, err := t.find(func(owner string, _ netip.Addr) bool {
		seen[owner] = true
		return false
	}, (*family).perPod)
	return slices.Sorted(maps.Keys(seen)), err
}

// selection is some elements of one set.
type selection struct {
	family   *family
	set      *nftables.Set
	elements []nftables.SetElement
}

// isOfOthers reports whether one of the elements has another owner.
func (s selection) isOfOthers(owner string) bool {
	return slices.ContainsFunc(s.elements, func(e nftables.SetElement) bool { return e.Comment != owner })
}

// named returns the elements that publish ports, and those of pods with some addresses that reach themselves.
func (w ruleset) named(owner string, ports []Port, addresses []netip.Addr) (all []selection) {
	elements := w.elementsOf(owner, ports)
	for _, a := range addresses {
		f := w.familyOf(a)
		elements[f.hairpin] = append(elements[f.hairpin], f.hairpinElement(a))
	}

	for _, f := range w.families {
		for _, set := range f.perPod() {
			if len(elements[set]) > 0 {
				all = append(all, selection{f, set, elements[set]})
			}
		}
	}
	return all
}

// find lists some sets of each family, and returns the unwanted elements. A set that is not there has none.
func (t *Table) find(due unwanted, sets func(*family) []*nftables.Set) (found []selection, err error) {
	for _, f := range t.want.families {
		for _, set := range sets(f) {
			all, err := t.kernel.Elements(set)
			if err != nil && !netlink.IsNotExist(err) {
				return nil, err
			}

			s := selection{family: f, set: set}
			for _, e := range all {
				if due(e.Comment, f.podOf(set, e)) {
					s.elements = append(s.elements, e)
				}
			}

			if len(s.elements) > 0 {
				found = append(found, s)
			}
		}
	}

	return found, nil
}

// lookUp returns what has the keys of some elements now, each once, if it is unwanted.
func lookUp(kernel nft.Reader, named []selection, due unwanted) (found []selection, err error) {
	for _, s := range named {
		var keys [][]byte
		for _, e := range s.elements {
			keys = append(keys, e.Key)
		}

		have, err := kernel.Lookup(s.set, keys)
		if err != nil {
			return nil, err
		}

		now := selection{family: s.family, set: s.set}
		for _, key := range slices.Sorted(maps.Keys(have)) {
			if e := have[key]; due(e.Comment, s.family.podOf(s.set, e)) {
				now.elements = append(now.elements, e)
			}
		}

		if len(now.elements) > 0 {
			found = append(found, now)
		}
	}

	return found, nil
}

// removeListed removes the unwanted elements of all sets, which it lists.
func (t *Table) removeListed(due unwanted) (gone []Port, err error) {
	found, err := t.find(due, (*family).perPod)
	if err != nil {
		return nil, err
	}
	return t.removeFound(found, due)
}

// removeTries bounds how often a transaction is put together again: of all that change something at the same
// time in the network namespace one succeeds at the first attempt.
const removeTries = 100

// removeFound removes elements that were found, if they are there still and unwanted, in one transaction: for
// each that deletes, Close waits some 10 ms, however many elements it holds. The kernel deletes what has a
// key, whatever it leads to, so the transaction is for the generation in which that was looked up.
func (t *Table) removeFound(found []selection, due unwanted) ([]Port, error) {
	if len(found) == 0 {
		return nil, nil
	}

	for range removeTries {
		generation, err := t.kernel.Generation()
		if err != nil {
			return nil, err
		}

		now, err := lookUp(t.kernel, found, due)
		if err != nil || len(now) == 0 {
			return nil, err
		}

		err = t.kernel.Conn.TransactIn(generation, deletions(now)...)
		if err == nil {
			return udpPorts(now), nil
		}
		if !nft.IsRace(err) {
			return nil, fmt.Errorf("delete nftables elements: %w", err)
		}
	}

	return nil, fmt.Errorf("delete nftables elements: others keep changing table %s", t.want.table.Name)
}

// deletions returns the messages that delete elements.
func deletions(found []selection) (messages []*netlink.Message) {
	for _, s := range found {
		var plain []nftables.SetElement
		for _, e := range s.elements {
			plain = append(plain, nftables.SetElement{Key: e.Key, Val: e.Val})
		}
		for part := range slices.Chunk(plain, maxElements) {
			messages = append(messages, nft.DeleteElements(s.set, part))
		}
	}
	return messages
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
