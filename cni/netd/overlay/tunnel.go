package overlay

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// names are those of the interfaces, for the families of nodes' addresses.
var names = [2]string{"trivet-vxlan4", "trivet-vxlan6"}

func (t Tunnel) name() string {
	if t.Local.Is4() {
		return names[0]
	}
	return names[1]
}

// Interfaces returns the indexes of the tunnel interfaces that there are.
func Interfaces(kernel *rtnl.Conn) (all []int, err error) {
	for _, name := range names {
		link, err := kernel.LinkByName(name)
		if err != nil && !netlink.IsNotExist(err) {
			return nil, err
		}
		if err == nil {
			all = append(all, link.Index)
		}
	}
	return all, nil
}

// Overhead is what a tunnel takes of the MTU of the network between the nodes: the headers of IP, UDP, VXLAN
// and Ethernet.
func Overhead(local netip.Addr) int {
	const ip4, ip6, udp, vxlan, ethernet = 20, 40, 8, 8, 14
	if local.Is4() {
		return ip4 + udp + vxlan + ethernet
	}
	return ip6 + udp + vxlan + ethernet
}

// PodMTU returns the MTU that pods may have whose packets travel through these tunnels, by that of the
// network between the nodes; 0 is not known.
func PodMTU(tunnels []Tunnel, mtu int) int {
	if mtu == 0 {
		return 0
	}
	smallest := mtu
	for _, t := range tunnels {
		smallest = min(smallest, max(mtu-Overhead(t.Local), minMTU))
	}
	return smallest
}

// ethernetMTU is that of a network whose MTU is not known.
const ethernetMTU = 1500

func (t Tunnel) mtu() int {
	mtu := t.MTU
	if mtu == 0 {
		mtu = ethernetMTU
	}
	return PodMTU([]Tunnel{t}, mtu)
}

// MACOf returns the MAC address of the tunnel interfaces of a node by its name: one that is locally
// administered, and the same wherever it is computed. A node may have many addresses, and others may choose
// another one of them than it does; its name is one.
func MACOf(node string) (mac [6]byte) {
	sum := sha256.Sum256([]byte("trivet tunnel " + node))
	copy(mac[:], sum[:])
	const local, multicast = 2, 1
	mac[0] = mac[0]&^multicast | local
	return mac
}

// linkLocal returns the address of IPv6 that an interface with a MAC address has (RFC 4291, appendix A).
func linkLocal(mac [6]byte) netip.Addr {
	a := [16]byte{0: 0xfe, 1: 0x80}
	copy(a[8:], mac[:3])
	copy(a[11:], []byte{0xff, 0xfe})
	copy(a[13:], mac[3:])
	a[8] ^= 2
	return netip.AddrFrom16(a)
}

// gateway returns the next hop to pods of a peer, which exists only as a neighbour on the tunnel. In IPv4 it
// is the first address of the pods, which no pod has; in IPv6 a link-local one, of which the kernel does not
// ask whether another route leads there.
func (p Peer) gateway(pods netip.Prefix) netip.Addr {
	if pods.Addr().Is4() {
		return pods.Masked().Addr()
	}
	return linkLocal(MACOf(p.Name))
}

// routes returns the routes to the pods of the peers.
func (t Tunnel) routes(index int) (all []rtnl.Route) {
	for _, p := range t.Peers {
		for _, pods := range p.Pods {
			all = append(all, rtnl.Route{
				Dst:     pods,
				Gateway: p.gateway(pods),
				Index:   index,
				OnLink:  pods.Addr().Is4(),
			})
		}
	}
	return all
}

// addresses returns what this node sends from when it sends to pods itself: their answers come back through
// the tunnel, too.
func (t Tunnel) addresses() (all []netip.Prefix) {
	for _, pods := range t.Pods {
		all = append(all, prefix.Single(pods.Masked().Addr()))
	}
	return all
}

// neighbours returns the MAC addresses of the gateways, and remotes where frames to them go.
func (t Tunnel) neighbours() (neighbours, remotes []rtnl.Neighbour) {
	for _, p := range t.Peers {
		mac := MACOf(p.Name)
		remotes = append(remotes, rtnl.Neighbour{Address: p.Address, MAC: mac})
		for _, pods := range p.Pods {
			neighbours = append(neighbours, rtnl.Neighbour{Address: p.gateway(pods), MAC: mac})
		}
	}
	return neighbours, remotes
}

// change is something that a tunnel's interface lacks, or has too much.
type change struct {
	what      string
	isMissing bool
	message   *netlink.Message
}

func (c change) String() string {
	if c.isMissing {
		return c.what + " is missing"
	}
	return c.what + " is not wanted"
}

// isDone reports whether an error means that somebody else has made the change.
func (c change) isDone(err error) bool {
	return c.isMissing && netlink.IsExist(err) || !c.isMissing && netlink.IsNotExist(err)
}

// compare returns how a tunnel's interface differs from the wanted one. What is missing comes first: the
// entry of an address that has moved is changed, and never absent.
func (t Tunnel) compare(kernel *rtnl.Conn, link rtnl.Link) (changes []change, err error) {
	if link.MTU != t.mtu() {
		changes = append(changes, change{
			what:      fmt.Sprintf("mtu %d, now %d,", t.mtu(), link.MTU),
			isMissing: true,
			message:   rtnl.SetMTU(link.Index, t.mtu()),
		})
	}

	addresses, err := kernel.Addresses(link.Index)
	if err != nil {
		return nil, err
	}
	neighbours, err := kernel.KeptNeighbours(link.Index)
	if err != nil {
		return nil, err
	}
	remotes, err := kernel.Remotes(link.Index)
	if err != nil {
		return nil, err
	}

	// An entry with another MAC address is replaced.
	wantedNeighbours, wantedRemotes := t.neighbours()
	isNeighbour := map[netip.Addr]bool{}
	for _, n := range wantedNeighbours {
		isNeighbour[n.Address] = true
	}
	neighbours = slices.DeleteFunc(neighbours, func(n rtnl.Neighbour) bool {
		return isNeighbour[n.Address] && !slices.Contains(wantedNeighbours, n)
	})

	changes = append(changes, diff(addresses, t.addresses(), addressText,
		func(a netip.Prefix) *netlink.Message { return rtnl.NewAddress(link.Index, a, rtnl.NoDAD) },
		func(a netip.Prefix) *netlink.Message { return rtnl.DeleteAddress(link.Index, a) })...)
	changes = append(changes, diff(neighbours, wantedNeighbours, neighbourText,
		func(n rtnl.Neighbour) *netlink.Message { return rtnl.KeepNeighbour(link.Index, n) },
		func(n rtnl.Neighbour) *netlink.Message { return rtnl.DeleteNeighbour(link.Index, n) })...)
	changes = append(changes, diff(remotes, wantedRemotes, remoteText,
		func(n rtnl.Neighbour) *netlink.Message { return rtnl.AddRemote(link.Index, n) },
		func(n rtnl.Neighbour) *netlink.Message { return rtnl.DeleteRemote(link.Index, n) })...)
	return changes, nil
}

func addressText(a netip.Prefix) string { return fmt.Sprintf("address %s", a) }

func neighbourText(n rtnl.Neighbour) string {
	return fmt.Sprintf("neighbour %s lladdr %s", n.Address, net.HardwareAddr(n.MAC[:]))
}

func remoteText(n rtnl.Neighbour) string {
	return fmt.Sprintf("forwarding entry %s dst %s", net.HardwareAddr(n.MAC[:]), n.Address)
}

// diff compares what there is with what is wanted: what is missing is added, and of the rest the excess is
// deleted.
func diff[V comparable](
	have, wanted []V, text func(V) string, add, remove func(V) *netlink.Message,
) (changes []change) {
	isWanted := setOf(wanted)
	isThere := setOf(have)
	for _, v := range wanted {
		if !isThere[v] {
			changes = append(changes, change{what: text(v), isMissing: true, message: add(v)})
			// Two pod CIDRs of a peer may share a gateway.
			isThere[v] = true
		}
	}
	for _, v := range have {
		if !isWanted[v] {
			changes = append(changes, change{what: text(v), message: remove(v)})
		}
	}
	return changes
}

func setOf[V comparable](all []V) map[V]bool {
	set := make(map[V]bool, len(all))
	for _, v := range all {
		set[v] = true
	}
	return set
}
