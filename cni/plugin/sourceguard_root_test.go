package plugin_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a pod sends gets to the host only from its own addresses, whether it is limited or not, and comes
// back.
func TestAPodSendsOnlyFromItsOwnAddresses(t *testing.T) {
	for name, more := range map[string]string{
		"unlimited": "",
		"limited":   `,"runtimeConfig":{"bandwidth":{` + limits + `}}`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "")
			c := h.newChain("pod", h.ofNetd()+more)
			if err := c.check(); err != nil {
				t.Error(err)
			}

			h.serve(h.netns, 80)
			for _, to := range []string{"10.88.0.1", "fd88::1"} {
				if _, err := h.dial(c.netns, net.JoinHostPort(to, "80")); err != nil {
					t.Error(err)
				}
			}

			h.forge(c, "10.88.0.77")
			h.ip(c.netns, "addr add 10.88.0.77/32 dev eth0")
			h.ip(c.netns, "addr add fd88::77/128 dev eth0 nodad")
			h.ip(c.netns, "route replace 10.88.0.1 dev eth0 src 10.88.0.77")
			h.ip(c.netns, "-6 route replace fd88::1 dev eth0 src fd88::77")
			for _, to := range []string{"10.88.0.1", "fd88::1"} {
				if reaches(c.netns, net.JoinHostPort(to, "80")) {
					t.Errorf("%s is reached from an address that the pod has given itself", to)
				}
			}

			c.del()
		})
	}
}

// forge sends a packet in the name of another one, and then one as the pod: of both, only that may come.
func (h *host) forge(c *chain, other string) {
	h.t.Helper()
	var service net.PacketConn
	h.in(h.netns, func() (err error) {
		service, err = net.ListenPacket("udp4", "10.88.0.1:5353")
		return err
	})
	defer func() { _ = service.Close() }()

	own := c.address(false).String()
	for _, source := range []string{other, own} {
		h.in(c.netns, func() error { return sendFrom(source, "10.88.0.1", 5353) })
	}
	_ = service.SetReadDeadline(time.Now().Add(time.Minute))
	_, from, err := service.ReadFrom(make([]byte, 100))
	if err != nil || !strings.HasPrefix(from.String(), own+":") {
		h.t.Errorf("the host got a packet from %v, %v", from, err)
	}
}

func TestAPodWithAnotherMACAddressIsCutOff(t *testing.T) {
	h := newHost(t, "")
	c := h.newChain("pod", h.ofNetd())
	h.serve(h.netns, 80)
	h.ip(c.netns, "link set eth0 address 02:00:00:00:00:99")
	if reaches(c.netns, "10.88.0.1:80") {
		t.Error("a pod sends with another MAC address")
	}
}

func TestCheckLooksForTheGuard(t *testing.T) {
	h := newHost(t, "")
	h.must("STATUS", "", "", `{"cniVersion":"1.1.0","name":"test",`+h.ofNetd()+`}`)
	for id, damage := range map[string]string{
		"a": "filter del dev VETH ingress",
		"b": "qdisc del dev VETH clsact",
	} {
		c := h.newChain(id, h.ofNetd())
		if err := c.check(); err != nil {
			t.Fatal(err)
		}
		veth := h.vethOf(c)
		h.program(h.netns, "tc", "iproute2", strings.ReplaceAll(damage, "VETH", veth))
		if err := c.check(); err == nil || !strings.Contains(err.Error(), "send from any address") {
			t.Errorf("%s: %v", damage, err)
		}
	}
}

// The kernel takes no bucket without a burst.
func TestALimitThatIsRefusedLeavesTheGuard(t *testing.T) {
	h := newHost(t, "")
	c := h.newChain("pod", h.ofNetd())
	for _, keys := range []string{
		`"ingressRate":8000000,"ingressBurst":1`,
		`"egressRate":8000000,"egressBurst":1`,
	} {
		out, err := h.call("ADD", "pod", c.netns, c.config(`"type":"bandwidth",`+keys))
		if err == nil {
			t.Errorf("%s is no error: %s", keys, out)
		}
		if err := c.check(); err != nil {
			t.Errorf("%s: %v", keys, err)
		}
	}
}

// vethOf is the host's end of a container's interface.
func (h *host) vethOf(c *chain) string {
	h.t.Helper()
	const mark = `"name": "veth`
	_, rest, ok := strings.Cut(c.result, mark)
	if !ok {
		h.t.Fatalf("no veth in %s", c.result)
	}
	end, _, _ := strings.Cut(rest, `"`)
	return "veth" + end
}

// A neighbour that believes it would send the pod what is another one's.
func TestAPodTakesNobodysAddressByARP(t *testing.T) {
	h := newHost(t, "")
	c := h.newChain("pod", h.ofNetd())
	h.in(c.netns, func() error { return announce(netip.MustParseAddr("10.88.0.77")) })
	h.in(c.netns, func() error { return announce(c.address(false)) })
	h.serve(h.netns, 80)
	if _, err := h.dial(c.netns, "10.88.0.1:80"); err != nil {
		t.Error(err)
	}
	if neighbours := h.ip(h.netns, "neigh show dev br0"); strings.Contains(neighbours, "10.88.0.77") {
		t.Error(neighbours)
	}
}

// announce asks everybody for the gateway in the name of an address, which Linux remembers.
func announce(a netip.Addr) error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()

	request := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	request = append(request, link.HardwareAddr...)
	request = append(request, a.AsSlice()...)
	request = append(request, make([]byte, 6)...)
	request = append(request, 10, 88, 0, 1)
	to := &unix.SockaddrLinklayer{Protocol: 0x0608, Ifindex: link.Index, Halen: 6}
	copy(to.Addr[:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	return unix.Sendto(fd, request, 0, to)
}

// Where a pod has no addresses, it may have any.
func TestOnLayer2TheMACAddressAloneIsGuarded(t *testing.T) {
	h := newHost(t, "")
	c := h.newChain("pod", `"type":"bridge","bridge":"br0","sourceGuard":true`)
	h.ip(h.netns, "addr add 10.77.0.1/24 dev br0")
	h.ip(c.netns, "addr add 10.77.0.2/24 dev eth0")
	h.serve(h.netns, 80)
	if _, err := h.dial(c.netns, "10.77.0.1:80"); err != nil {
		t.Error(err)
	}
	if err := c.check(); err != nil {
		t.Error(err)
	}
}
