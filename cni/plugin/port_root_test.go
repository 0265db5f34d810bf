package plugin_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/testenv"
)

// A pod with host port 10250 would have everything that is meant for the node's own API.
func TestHostPortThatTheHostListensOnIsRefusedWithItsOwner(t *testing.T) {
	h := newHost(t, "")
	h.serve(h.netns, 10250)
	before := h.leftovers()
	const taken = `{"hostPort":10250,"containerPort":80}`
	c := h.command("ADD", "a", testenv.Netns(t), h.config(ports(taken)))
	c.Env = append(c.Env, "CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=a")
	_, err := h.run(c)
	owner := fmt.Sprintf("host port 0.0.0.0:10250/tcp is taken: process %d (", os.Getpid())
	if err == nil || !strings.Contains(err.Error(), owner) {
		t.Errorf("%v, want %q", err, owner)
	}
	if now := h.leftovers(); now != before {
		t.Errorf("before %q, after %q", before, now)
	}

	for id, free := range map[string]string{
		"another-protocol": `{"hostPort":10250,"containerPort":80,"protocol":"udp"}`,
		"another-port":     `{"hostPort":10251,"containerPort":80}`,

		// A runtime that is not one of Kubernetes may listen itself, for this container.
		"of-no-pod": taken,
	} {
		h.pod(id, ports(free))
		h.must("DEL", id, "", h.config(""))
	}
}

// Whichever table the kernel calls first would have the packets.
func TestAHostPortOfAnotherNetworkIsRefusedWithItsOwner(t *testing.T) {
	const one = `{"hostPort":8080,"containerPort":80}`
	h := newHost(t, "")
	netns, _, _ := h.pod("first", ports(one))
	other := strings.NewReplacer(
		`"name":"test"`, `"name":"other"`, "br0", "br1", "10.88.", "10.89.", "fd88", "fd89")

	before := h.leftovers()
	for _, c := range []struct{ wanted, want string }{
		{one, "host port *:8080/tcp is taken by first/eth0 of the network with nftables table cni_test"},
		{`{"hostPort":8080,"containerPort":80,"hostIP":"127.0.0.1"}`, "is taken by first/eth0"},
	} {
		_, err := h.call("ADD", "a", testenv.Netns(t), other.Replace(h.config(ports(c.wanted))))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.wanted, err)
		}
	}
	if now := strings.Replace(h.leftovers(), "link br1, ", "", 1); now != before {
		t.Errorf("before %q, after %q", before, now)
	}

	// By portmap, in a chain; and what it has published is refused to the others.
	portmap := `"type":"portmap","backend":"nftables"`
	c := h.newChain("chained", strings.Replace(h.ptp(""), "10.88.", "10.90.", 1))
	_, err := h.call("ADD", "chained", c.netns, c.config(portmap+ports(one)))
	if err == nil || !strings.Contains(err.Error(), "is taken by first/eth0") {
		t.Error(err)
	}

	h.must("DEL", "first", netns, h.config(""))
	h.must("ADD", "chained", c.netns, c.config(portmap+ports(one)))
	for _, config := range []string{h.config(ports(one)), c.config(portmap + ports(one))} {
		_, err := h.call("ADD", "late", testenv.Netns(t), config)
		if err == nil || !strings.Contains(err.Error(), "is taken by container chained in nftables") {
			t.Error(err)
		}
	}

	// The port itself, of another protocol, is free.
	h.pod("udp", ports(`{"hostPort":8080,"containerPort":80,"protocol":"udp"}`))
}

// route_localnet, which host ports on 127.0.0.1 need, makes the kernel take packets in the name of the host
// itself from pods.
func TestPodsCannotSendInTheNameOfTheHostsLoopback(t *testing.T) {
	h := newHost(t, "")
	netns, _, _ := h.pod("a", twoPorts)
	var service net.PacketConn
	h.in(h.netns, func() (err error) {
		service, err = net.ListenPacket("udp4", "10.88.0.1:5353")
		return err
	})
	defer func() { _ = service.Close() }()

	for _, source := range []string{"127.0.0.2", "10.88.0.2"} {
		h.in(netns, func() error { return sendFrom(source, "10.88.0.1", 5353) })
	}

	if err := service.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}

	// Packets come in order: the forged one would be the first.
	_, from, err := service.ReadFrom(make([]byte, 100))
	if err != nil || !strings.HasPrefix(from.String(), "10.88.0.2:") {
		t.Errorf("the service got a packet from %v, %v", from, err)
	}
}

// sendFrom sends a UDP packet with a source address that the namespace may not have.
func sendFrom(source, to string, port uint16) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()

	packet := make([]byte, 28)
	packet[0] = 0x45
	packet[8] = 64
	packet[9] = unix.IPPROTO_UDP
	copy(packet[12:], net.ParseIP(source).To4())
	copy(packet[16:], net.ParseIP(to).To4())
	binary.BigEndian.PutUint16(packet[20:], 4000)
	binary.BigEndian.PutUint16(packet[22:], port)
	binary.BigEndian.PutUint16(packet[24:], 8)
	return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])})
}

// A host port is of the host's addresses alone: what is sent to the same port of somebody else gets through.
func TestHostPortTakesNothingThatIsSentToOthers(t *testing.T) {
	h := newHost(t, `,"hostRouted":true`)
	server, _, _ := h.pod("server", ports(`{"hostPort":8080,"containerPort":80}`))
	h.serve(server, 80)
	_, other4, other6 := h.pod("other", "")
	client, _, _ := h.pod("client", "")
	for _, to := range []string{other4.String() + ":8080", "[" + other6.String() + "]:8080"} {
		if reaches(client, to) {
			t.Errorf("what is sent to %s gets to the host port's pod", to)
		}
	}
}

// Otherwise pods could give the host routes and addresses by router advertisements.
func TestBridgeTakesNoRouterAdvertisements(t *testing.T) {
	h := newHost(t, "")
	h.pod("a", "")
	if got := h.read("/proc/sys/net/ipv6/conf/br0/accept_ra"); got != "0" {
		t.Errorf("accept_ra is %s", got)
	}
}
