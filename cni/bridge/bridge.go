// Package bridge connects a container to a Linux bridge of the host by a veth pair, one end of which is in
// the container's network namespace.
package bridge

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// Config is what is the same for all pods of a network.
type Config struct {
	Network string
	// Name is that of the bridge.
	Name string
	// MTU 0 leaves the kernel's default.
	MTU int
	// IsGateway gives the bridge the gateway addresses, and lets the host forward.
	IsGateway bool
	// ForceAddress replaces another address of the same family on the bridge, instead of refusing it.
	ForceAddress bool
	Port         rtnl.Port
	Promiscuous  bool
	// HostRouted makes pods send everything to the gateway, also what is for pods of the same bridge. So
	// packets between pods pass the host's netfilter hooks, and Services work between pods of one node
	// without br_netfilter.
	HostRouted bool
	VLANs      VLANs
	// PodDown leaves the pod's end down and without addresses, for whom sets it up itself.
	PodDown bool
	// DAD checks IPv6 addresses for duplicates before they are usable, which takes about 2 s.
	DAD bool
}

// Attachment is one pod's interface.
type Attachment struct {
	Owner ipam.Owner
	// Netns is the path of the pod's network namespace.
	Netns string
	// MAC nil is derived from the address; Check does not look at it.
	MAC net.HardwareAddr
	// MTU and HostMTU, those of the two ends, are for Check, which does not look at 0.
	MTU       int
	HostMTU   int
	Addresses []Address
	// Routes have no Index.
	Routes []rtnl.Route
}

// Address is an address of the pod, with its prefix length and the gateway of its subnet.
type Address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// gatewayPrefix returns the gateway with the prefix length of the subnet.
func (a Address) gatewayPrefix() netip.Prefix { return netip.PrefixFrom(a.Gateway, a.Prefix.Bits()) }

// Ends are the interfaces of an attachment.
type Ends struct{ Bridge, Host, Pod rtnl.Link }

// discardGroup is the interface group (ip link show group 29046) of veths that were cut off and wait for
// their namespace to go.
const discardGroup = 29046

// HostName returns the name of the host's end of an attachment's veth. It is derived from the owner, so that
// DEL needs no record.
func HostName(network string, owner ipam.Owner) string {
	sum := sha256.Sum256([]byte(network + "/" + owner.String()))
	return "veth" + hex.EncodeToString(sum[:5])
}

// aliasMark begins the alias of every interface that this package makes.
const aliasMark = "cni:"

// aliasPrefix and an owner's label are the alias of the host's end, by which GC finds whose it is. The kernel
// takes 255 bytes, of which each has its share.
func aliasPrefix(network string) string { return aliasMark + ipam.Shorten(network) + ":" }

// Alias is that of the host's end of an attachment.
func Alias(network string, owner ipam.Owner) string { return aliasPrefix(network) + owner.Label() }

// IsOwn reports whether an interface is the host's end of an attachment to a network.
func IsOwn(network string, l rtnl.Link) bool { return strings.HasPrefix(l.Alias, aliasPrefix(network)) }

// IsAttached reports whether an attachment has its interface: not one that DEL has cut off.
func IsAttached(host *rtnl.Conn, network string, owner ipam.Owner) bool {
	link, err := host.LinkByName(HostName(network, owner))
	return err == nil && !isCutOff(link)
}
