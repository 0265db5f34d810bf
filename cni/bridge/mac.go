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

// hashMAC returns a locally administered address made of a hash: the same each time.
func hashMAC(seed string, addresses []Address) net.HardwareAddr {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %v", seed, addresses))
	return net.HardwareAddr{sum[0]&^0x01 | 0x02, sum[1], sum[2], sum[3], sum[4], sum[5]}
}

// podMAC returns the MAC address of a pod's interface. It is derived from the pod's IPv4 address, so that an
// entry of an ARP cache is still right when the next pod gets the address.
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

// bridgeMAC returns the MAC address of a bridge that this package makes. It is derived from the bridge's name
// and the gateway, so that a bridge that is made again has the same one, or else from the first pod's
// addresses.
func bridgeMAC(c Config, addresses []Address) net.HardwareAddr {
	if c.IsGateway && len(addresses) > 0 && addresses[0].Gateway.IsValid() {
		return hashMAC("bridge "+c.Name+" "+addresses[0].Gateway.String(), nil)
	}
	return hashMAC("bridge "+c.Name, addresses)
}

// fixMAC keeps a bridge that somebody else made from taking over the MAC addresses of its ports: those change
// with the pods, under the ARP caches of everybody on the bridge. The kernel stops doing so once an address
// has been set, even the one that the bridge has. own is what a bridge made here has; one without any address
// gets it, since the kernel removes the address with the last port.
func fixMAC(host *rtnl.Conn, bridge *rtnl.Link, own net.HardwareAddr) error {
	isZero := bytes.Equal(bridge.MAC, make(net.HardwareAddr, len(own)))
	if bytes.Equal(bridge.MAC, own) || !isZero && hasFixedMAC(*bridge) {
		return nil
	}
	if isZero {
		bridge.MAC = own
	}
	return host.Must(rtnl.SetMAC(bridge.Index, bridge.MAC))
}

// hasFixedMAC reports whether somebody has set the bridge's MAC address. It asks sysfs, for which there is no
// netlink attribute. A /sys of another network namespace may show another interface of the same name: the
// address tells them apart.
func hasFixedMAC(bridge rtnl.Link) bool {
	// NET_ADDR_SET of <uapi/linux/netdevice.h>.
	const set = "3"
	dir := "/sys/class/net/" + bridge.Name + "/"
	return readLine(dir+"addr_assign_type") == set && readLine(dir+"address") == bridge.MAC.String()
}

func readLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
