package lan

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/trivet-node/trivet/internal/namespace"
)

func inNetwork(t *testing.T, pid int, f func() error) {
	t.Helper()
	must(t, namespace.Do(f, fmt.Sprintf("/proc/%d/ns/net", pid)))
}

func listenIn(t *testing.T, pid int, address string) (c net.PacketConn) {
	t.Helper()
	inNetwork(t, pid, func() (err error) { c, err = net.ListenPacket("udp", address); return err })
	t.Cleanup(func() { c.Close() })
	return c
}

func sendFrom(t *testing.T, pid int, address, text string) {
	t.Helper()
	inNetwork(t, pid, func() error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(text))
		return err
	})
}
