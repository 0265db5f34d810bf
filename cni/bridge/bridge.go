// Package bridge builds a pod's network: a veth pair between the pod's network namespace and a Linux bridge of the host.
package bridge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// Config is what is the same for all pods of a network.
type Config struct {
	Network    string
	Name       string // of the bridge
	MTU        int    // 0: the kernel's default
	IsGateway  bool   // the bridge has the gateway addresses and the host forwards
	Force      bool   // another address of the same family on the bridge is replaced instead of refused
	Port       rtnl.Port
	Promisc    bool
	HostRouted bool // pods send everything to the gateway
	DAD        bool // IPv6 addresses are checked for duplicates before they are usable (about 2 s)
}

// Attachment is one pod's interface.
type Attachment struct {
	ContainerID, IfName string
	Netns               string // path
	MAC                 net.HardwareAddr
	Addresses           []Address
	Routes              []rtnl.Route // without Index
}

// Address is an address of the pod with its prefix length and the gateway of its subnet.
type Address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// Ends are the interfaces that Attach made.
type Ends struct{ Bridge, Host, Pod rtnl.Link }

// DiscardGroup is the interface group (ip link show group 29046) of cut off veths that wait for their namespace to go.
const DiscardGroup = 29046

// HostName is the name of the host's end of an attachment's veth. It can be computed again, so that DEL needs no record.
func HostName(network, containerID, ifname string) string {
	sum := sha256.Sum256([]byte(network + "/" + containerID + "/" + ifname))
	return "veth" + hex.EncodeToString(sum[:5])
}

// alias tells who an interface belongs to. It is how GC finds interfaces.
func alias(network, containerID, ifname string) string {
	return "cni:" + network + ":" + containerID + "/" + ifname
}

// Ensure makes the bridge fit: there, up, with the gateway addresses; the host forwards.
func Ensure(host *rtnl.Conn, c Config, addresses []Address) (rtnl.Link, error) {
	link, err := host.LinkByName(c.Name)
	if rtnl.Gone(err) {
		link, err = create(host, c, addresses)
	}
	if err != nil {
		return rtnl.Link{}, err
	}
	if link.Kind != "bridge" {
		return rtnl.Link{}, fmt.Errorf("interface %s is there but is no bridge", c.Name)
	}
	if !link.Up {
		if err := host.Must(rtnl.SetUp(link.Index)); err != nil {
			return rtnl.Link{}, err
		}
	}
	// Pods get the bridge's MTU, and a configuration may have changed it since the bridge was made.
	if c.MTU != 0 && link.MTU != c.MTU {
		if err := host.Must(rtnl.SetMTU(link.Index, c.MTU)); err != nil {
			return rtnl.Link{}, err
		}
		link.MTU = c.MTU
	}
	if c.Promisc {
		if err := host.Must(rtnl.SetPromiscuous(link.Index)); err != nil {
			return rtnl.Link{}, err
		}
	}
	if c.IsGateway {
		err = gateway(host, c, link, addresses)
	}
	return link, err
}

func create(host *rtnl.Conn, c Config, addresses []Address) (rtnl.Link, error) {
	// A MAC of its own keeps the bridge from taking over its ports', which would change under the pods' ARP caches.
	if err := host.Must(rtnl.NewBridge(c.Name, hashMAC("bridge "+c.Name, addresses), c.MTU)); err != nil && !rtnl.Exists(err) {
		return rtnl.Link{}, err
	}
	link, err := host.LinkByName(c.Name)
	if err != nil {
		return rtnl.Link{}, err
	}
	if err := write("net/ipv6/conf/"+c.Name+"/accept_ra", "0"); err != nil {
		return rtnl.Link{}, err
	}
	return link, nil
}

// gateway gives the bridge its addresses. They are sent each time: one that is there costs a refusal and no look.
func gateway(host *rtnl.Conn, c Config, bridge rtnl.Link, addresses []Address) error {
	var families [2]bool
	for _, a := range addresses {
		if !a.Gateway.IsValid() {
			continue
		}
		want := netip.PrefixFrom(a.Gateway, a.Prefix.Bits())
		families[index(a.Gateway)] = true
		if a.Gateway.Is6() {
			if err := write("net/ipv6/conf/"+c.Name+"/disable_ipv6", "0"); err != nil {
				return err
			}
		}
		err := host.Must(rtnl.NewAddress(bridge.Index, want, rtnl.NoDAD))
		if rtnl.Exists(err) {
			continue
		}
		if err == nil {
			err = settle(host, c, bridge, want)
		}
		if err != nil {
			return fmt.Errorf("gateway of bridge %s: %w", c.Name, err)
		}
	}
	return forward(families)
}

func index(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// settle deals with other addresses on a bridge that has just got a gateway address. IPv6 subnets beside each other are fine.
func settle(host *rtnl.Conn, c Config, bridge rtnl.Link, want netip.Prefix) error {
	have, err := host.Addresses(bridge.Index)
	if err != nil {
		return err
	}
	for _, other := range have {
		if other == want || other.Addr().Is4() != want.Addr().Is4() || other.Addr().Is6() && !other.Overlaps(want) {
			continue
		}
		if c.Force {
			if err := host.Must(rtnl.DeleteAddress(bridge.Index, other)); err != nil && !rtnl.Gone(err) {
				return err
			}
			continue
		}
		err := fmt.Errorf("it has address %s already, other than %s (forceAddress replaces it)", other, want)
		return errors.Join(err, host.Must(rtnl.DeleteAddress(bridge.Index, want)))
	}
	return nil
}

func forward(families [2]bool) error {
	if families[0] {
		if err := write("net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
	}
	if families[1] {
		return write("net/ipv6/conf/all/forwarding", "1")
	}
	return nil
}

// RouteLoopback lets the host send from 127.0.0.1 to the pods of a bridge, which host ports on 127.0.0.1 need. It also lets pods send to
// the host's 127.0.0.1: call it only when a rule drops that.
func RouteLoopback(bridge string) error { return write("net/ipv4/conf/"+bridge+"/route_localnet", "1") }

// write sets a sysctl of the network namespace that the thread is in, unless it has the value. A kernel without it (IPv6 off) is fine.
func write(name, value string) error {
	now, err := os.ReadFile("/proc/sys/" + name)
	if err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	return set(name, value)
}

// set is write for one that is not yet as wanted: the pod's are new.
func set(name, value string) error {
	f, err := os.OpenFile("/proc/sys/"+name, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set sysctl %s to %s: %w", name, value, err)
	}
	return nil
}

// hashMAC is a locally administered address made of a hash: the same each time.
func hashMAC(seed string, addresses []Address) net.HardwareAddr {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %v", seed, addresses))
	return net.HardwareAddr{sum[0]&^0x01 | 0x02, sum[1], sum[2], sum[3], sum[4], sum[5]}
}

// podMAC is made of the pod's IPv4 address: whoever has that address in an ARP cache stays right when the next pod gets it.
func podMAC(a Attachment) net.HardwareAddr {
	if a.MAC != nil {
		return a.MAC
	}
	for _, address := range a.Addresses {
		if ip := address.Prefix.Addr(); ip.Is4() {
			b := ip.As4()
			return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
		}
	}
	return hashMAC(a.ContainerID+"/"+a.IfName, a.Addresses)
}

// errFull: a bridge has 1,024 port numbers, of which the kernel gives out 1,023.
func explain(err error, bridge string) error {
	if errors.Is(err, unix.EXFULL) {
		return fmt.Errorf("bridge %s is full (a Linux bridge has 1023 ports): %w", bridge, err)
	}
	return err
}
