package bridge

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// hashMAC is a locally administered address made of a hash: the same each time.
func hashMAC(seed string, addresses []Address) net.HardwareAddr {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %v", seed, addresses))
	return net.HardwareAddr{sum[0]&^0x01 | 0x02, sum[1], sum[2], sum[3], sum[4], sum[5]}
}

// podMAC is made of the pod's IPv4 address: whoever has that address in an ARP cache stays right when the
// next pod gets it.
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
	return hashMAC(a.Owner.String(), a.Addresses)
}

// bridgeMAC is the address of a bridge that this plugin makes: of its name and the gateway's address, so that
// it is known again, or else of the first pod's.
func bridgeMAC(c Config, addresses []Address) net.HardwareAddr {
	if c.IsGateway && len(addresses) > 0 && addresses[0].Gateway.IsValid() {
		return hashMAC("bridge "+c.Name+" "+addresses[0].Gateway.String(), nil)
	}
	return hashMAC("bridge "+c.Name, addresses)
}

// pin keeps a bridge that somebody else made from taking over its ports' MAC addresses: those change with the
// pods, under the ARP caches of everybody on the bridge. The kernel stops doing so once an address has been
// set, be it the one that is there. own is the address of a bridge made here, which one gets too that has
// none: the kernel takes it away with the last port.
func pin(host *rtnl.Conn, bridge *rtnl.Link, own net.HardwareAddr) error {
	switch {
	case bytes.Equal(bridge.MAC, make(net.HardwareAddr, len(own))):
		bridge.MAC = own
	case bytes.Equal(bridge.MAC, own), pinned(*bridge):
		return nil
	}
	return host.Must(rtnl.SetMAC(bridge.Index, bridge.MAC))
}

// pinned asks sysfs, which no netlink attribute replaces. A /sys of another network namespace may show
// another interface of the same name: the address tells them apart.
func pinned(bridge rtnl.Link) bool {
	// NET_ADDR_SET of <uapi/linux/netdevice.h>
	const set = "3"
	dir := "/sys/class/net/" + bridge.Name + "/"
	return line(dir+"addr_assign_type") == set && line(dir+"address") == bridge.MAC.String()
}

func line(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
