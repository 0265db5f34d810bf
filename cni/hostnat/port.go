package hostnat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/conntrack"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/cni/prefix"
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

// IsValid reports whether a table can hold the port.
func (p Port) IsValid() bool {
	_, known := protocols[p.Protocol]
	pod := p.Pod.Addr()
	return known && pod.IsValid() && (!p.HostIP.IsValid() || prefix.SameFamily(p.HostIP, pod))
}

// AddPorts publishes the host ports of owner, all or none. A port that another owner has is an error that
// names that owner.
func (t *Table) AddPorts(owner string, ports []Port) error {
	var messages []*netlink.Message
	for set, elements := range t.want.elementsOf(owner, ports) {
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

	// What somebody sends since before then is led past the pod, or to one that had the port before.
	began := udpOf(ports)
	for i := range began {
		began[i].Pod = netip.Addr{}
	}
	return conntrack.ForgetUDP(t.kernel.Conn, began)
}

// maxElements is how many elements with their comments a message has room for: their list is an attribute of
// at most 64 KB.
const maxElements = 200

// elementsOf returns what publishes ports of owner, by set: the kernel acknowledges each message, so that one
// for each port would take ten times as long.
func (w ruleset) elementsOf(owner string, ports []Port) map[*nftables.Set][]nftables.SetElement {
	all := map[*nftables.Set][]nftables.SetElement{}
	pods := map[netip.Addr]bool{}
	add := func(s *nftables.Set, e nftables.SetElement) {
		e.Comment = owner
		all[s] = append(all[s], e)
	}

	for _, p := range ports {
		pod := p.Pod.Addr()
		f := w.familyOf(pod)
		add(f.mapOf(p), f.portElement(p))
		if !pods[pod] {
			pods[pod] = true
			add(f.hairpin, f.hairpinElement(pod))
		}
	}
	return all
}

// published returns those elements of maps that have the key of one of some ports, by map and key.
func (t *Table) published(ports []Port) (map[*nftables.Set]map[string]nftables.SetElement, error) {
	keys := map[*nftables.Set][][]byte{}
	for _, p := range ports {
		f := t.want.familyOf(p.Pod.Addr())
		m := f.mapOf(p)
		keys[m] = append(keys[m], f.portElement(p).Key)
	}

	all := map[*nftables.Set]map[string]nftables.SetElement{}
	for m, some := range keys {
		found, err := t.kernel.Lookup(m, some)
		if err != nil {
			return nil, err
		}
		all[m] = found
	}
	return all, nil
}

// nameOwner returns an error that says who has the port that the kernel refused.
func (t *Table) nameOwner(ports []Port, refused error) error {
	published, err := t.published(ports)
	if err != nil {
		return errors.Join(refused, err)
	}

	for _, p := range ports {
		f := t.want.familyOf(p.Pod.Addr())
		want := f.portElement(p)
		have, taken := published[f.mapOf(p)][string(want.Key)]
		if taken && string(have.Val) != string(want.Val) {
			return fmt.Errorf("%s is taken by %s", p, have.Comment)
		}
	}

	return fmt.Errorf("publish host ports: %w", refused)
}

// HasPorts returns an error that names the first of the ports that is not published as it should be.
func (t *Table) HasPorts(ports []Port) error {
	published, err := t.published(ports)
	if err != nil {
		return err
	}

	for _, p := range ports {
		f := t.want.familyOf(p.Pod.Addr())
		m := f.mapOf(p)
		want := f.portElement(p)
		if have := published[m][string(want.Key)]; string(have.Val) != string(want.Val) {
			return fmt.Errorf("%s to %s is not in nftables map %s", p, p.Pod, m.Name)
		}
	}

	return nil
}

// ForgetUDP deletes the tracked connections that lead to pods by those of some host ports that are of UDP. A
// client that keeps sending would otherwise keep its entry alive without end. Another pod may have a port by
// now: its connections stay.
func (t *Table) ForgetUDP(ports []Port) error {
	return conntrack.ForgetUDP(t.kernel.Conn, udpOf(ports))
}

// udpOf returns those of some host ports that are of UDP.
func udpOf(ports []Port) (all []conntrack.Port) {
	for _, p := range ports {
		if p.Protocol == "udp" {
			all = append(all, conntrack.Port{
				Is6:     p.Pod.Addr().Is6(),
				Address: p.HostIP,
				Number:  p.HostPort,
				Pod:     p.Pod.Addr(),
			})
		}
	}
	return all
}
