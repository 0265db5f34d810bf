// Package bridge builds a pod's network: a veth pair between the pod's network namespace and a Linux bridge
// of the host.
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

	"github.com/trivet-node/trivet/cni/ipam"
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
	Owner     ipam.Owner
	Netns     string           // path
	MAC       net.HardwareAddr // nil: made of the address; in Check: not looked at
	MTU       int              // looked at by Check, unless 0
	Addresses []Address
	Routes    []rtnl.Route // without Index
}

// Address is an address of the pod with its prefix length and the gateway of its subnet.
type Address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// Ends are the interfaces that Attach made.
type Ends struct{ Bridge, Host, Pod rtnl.Link }

// DiscardGroup is the interface group (ip link show group 29046) of cut off veths that wait for their
// namespace to go.
const DiscardGroup = 29046

// HostName is the name of the host's end of an attachment's veth. It can be computed again, so that DEL needs
// no record.
func HostName(network string, owner ipam.Owner) string {
	sum := sha256.Sum256([]byte(network + "/" + owner.String()))
	return "veth" + hex.EncodeToString(sum[:5])
}

// aliasPrefix and an owner's label are an interface's alias, which tells who it belongs to: GC finds
// interfaces by it. The kernel takes 255 bytes, of which each has its share.
func aliasPrefix(network string) string { return "cni:" + ipam.Shorten(network) + ":" }

func alias(network string, owner ipam.Owner) string { return aliasPrefix(network) + owner.Label() }

func index(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
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

// RouteLoopback lets the host send from 127.0.0.1 to the pods of a bridge, which host ports on 127.0.0.1
// need. It also lets pods send to the host's 127.0.0.1: call it only when a rule drops that.
func RouteLoopback(bridge string) error { return write("net/ipv4/conf/"+bridge+"/route_localnet", "1") }

// write sets a sysctl of the network namespace that the thread is in, unless it has the value. A kernel
// without it (IPv6 off) is fine.
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

// errFull: a bridge has 1,024 port numbers, of which the kernel gives out 1,023.
func explain(err error, bridge string) error {
	if errors.Is(err, unix.EXFULL) {
		return fmt.Errorf("bridge %s is full (a Linux bridge has 1023 ports): %w", bridge, err)
	}
	return err
}
