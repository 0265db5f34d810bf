package interfaces

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/plugin/addresses"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// read returns the call of a container and its network.
func read(t *testing.T, stdin string) (*call.Call, *conf.Network) {
	t.Helper()
	h, err := conf.ReadHead([]byte(stdin))
	if err != nil {
		t.Fatal(err)
	}

	c := call.New(h, call.Request{
		ContainerID: "pod",
		IfName:      "eth0",
		Netns:       "/pod",
		Stdin:       []byte(stdin),
	})
	if err := c.ReadPrevious(); err != nil {
		t.Fatal(err)
	}

	n, err := Bridge{HostPorts: true}.read(c)
	if err != nil {
		t.Fatal(err)
	}

	return c, n
}

const dualStack = `{"cniVersion":"1.1.0","name":"n","bridge":"br0","mtu":1400,"isDefaultGateway":%v,
	"ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd01::/64"}]],
	"routes":[%s]}%s}`

// allocated is what host-local gives a pod of the network.
func allocated(n *conf.Network) (a addresses.Allocation) {
	for i, address := range []string{"10.1.0.9/24", "fd01::9/64"} {
		a.Addresses = append(a.Addresses, addresses.Address{
			Prefix:  netip.MustParsePrefix(address),
			Gateway: n.IPAM.Sets[i][0].Gateway,
		})
	}
	a.Routes = n.IPAM.Routes
	return a
}

func TestRoutesOfTheConfigurationComeBeforeDefaultRoutes(t *testing.T) {
	const both = "[0.0.0.0/0 via 10.1.0.1 ::/0 via fd01::1]"
	for _, c := range []struct {
		defaultGateway bool
		routes         string
		want           string
	}{
		{false, ``, "[]"},
		{true, ``, both},
		{false, `{"dst":"192.0.2.0/24"}`, "[192.0.2.0/24 via 10.1.0.1]"},
		{false, `{"dst":"192.0.2.0/24","gw":"10.1.0.7"}`, "[192.0.2.0/24 via 10.1.0.7]"},
		{false, `{"dst":"2001:db8::/32"}`, "[2001:db8::/32 via fd01::1]"},
		{true, `{"dst":"0.0.0.0/0","gw":"10.1.0.7"}`, "[0.0.0.0/0 via 10.1.0.7 ::/0 via fd01::1]"},
		{true, `{"dst":"192.0.2.7/24"}`, "[192.0.2.0/24 via 10.1.0.1 " + both[1:]},
	} {
		call, n := read(t, fmt.Sprintf(dualStack, c.defaultGateway, c.routes, ""))
		a, err := newAttachment(call, n, allocated(n))
		if err != nil {
			t.Error(err)
			continue
		}

		got := []string{}
		for _, r := range a.Routes {
			got = append(got, fmt.Sprintf("%s via %s", r.Dst, r.Gateway))
		}

		if fmt.Sprint(got) != c.want {
			t.Errorf("routes %s, default gateway %v: %v, want %s", c.routes, c.defaultGateway, got, c.want)
		}
	}
}

func TestANetworkOnLayer2HasNoRoutes(t *testing.T) {
	c, n := read(t, `{"cniVersion":"1.1.0","name":"n","isDefaultGateway":true}`)
	a, err := newAttachment(c, n, addresses.Allocation{})
	if err != nil || len(a.Routes) != 0 || len(a.Addresses) != 0 || gatewaySets(n) != nil {
		t.Errorf("%+v, %v", a, err)
	}
}

// Plugins later in the chain may change the interface, and say so in the result that CHECK gets.
func TestCheckExpectsWhatPrevResultSays(t *testing.T) {
	const previous = `,"prevResult":{"cniVersion":"1.1.0",
		"interfaces":[{"name":"eth0","sandbox":"/pod","mac":"02:00:00:00:00:07","mtu":1300}],
		"ips":[{"address":"10.1.0.9/24","gateway":"10.1.0.1","interface":0}]}`
	c, n := read(t, fmt.Sprintf(dualStack, true, "", previous))
	got, err := previousAttachment(c, n)
	want := bridge.Attachment{
		Owner: ipam.Owner{ContainerID: "pod", IfName: "eth0"},
		Netns: "/pod",
		MAC:   net.HardwareAddr{2, 0, 0, 0, 0, 7},
		MTU:   1300,
		// prevResult does not have the host's end.
		HostMTU: 1400,
		Addresses: []bridge.Address{{
			Prefix:  netip.MustParsePrefix("10.1.0.9/24"),
			Gateway: netip.MustParseAddr("10.1.0.1"),
		}},
		Routes: []rtnl.Route{{
			Dst:     netip.MustParsePrefix("0.0.0.0/0"),
			Gateway: netip.MustParseAddr("10.1.0.1"),
		}},
	}
	if d := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); d != "" || err != nil {
		t.Error(d, err)
	}

	// One that says nothing leaves the host's end as the configuration has it. A plugin that comes later may
	// have changed the other one.
	c, n = read(t, fmt.Sprintf(dualStack, true, "", `,"prevResult":{"cniVersion":"1.1.0"}`))
	got, err = previousAttachment(c, n)
	if err != nil || got.MTU != 0 || got.HostMTU != 1400 || got.MAC != nil || len(got.Addresses) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTheResultDescribesBridgeHostAndPod(t *testing.T) {
	c, n := read(t, fmt.Sprintf(dualStack, true, "", ""))
	a, err := newAttachment(c, n, allocated(n))
	if err != nil {
		t.Fatal(err)
	}

	mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	result := describe(c, bridge.Ends{
		Bridge: rtnl.Link{Name: "br0", MAC: mac, MTU: 1400},
		Host:   rtnl.Link{Name: "veth1", MAC: mac, MTU: 1400},
		Pod:    rtnl.Link{Name: "eth0", MAC: mac, MTU: 1400},
	}, a)

	var got []string
	for _, i := range result.Interfaces {
		got = append(got, fmt.Sprintf("%s %s %d %q", i.Name, i.Mac, i.Mtu, i.Sandbox))
	}

	for _, ip := range result.IPs {
		got = append(got, fmt.Sprintf("%s via %s on %d", ip.Address.String(), ip.Gateway, *ip.Interface))
	}

	for _, r := range result.Routes {
		got = append(got, fmt.Sprintf("%s via %s", r.Dst.String(), r.GW))
	}

	want := []string{
		`br0 02:00:00:00:00:07 1400 ""`,
		`veth1 02:00:00:00:00:07 1400 ""`,
		`eth0 02:00:00:00:00:07 1400 "/pod"`,
		"10.1.0.9/24 via 10.1.0.1 on 2",
		"fd01::9/64 via fd01::1 on 2",
		"0.0.0.0/0 via 10.1.0.1",
		"::/0 via fd01::1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestStatusLooksForTheGatewaysOfAllRanges(t *testing.T) {
	_, n := read(t, fmt.Sprintf(dualStack, true, "", ""))
	want := "[[{10.1.0.0/24 10.1.0.1}] [{fd01::/64 fd01::1}]]"
	if got := fmt.Sprint(gatewaySets(n)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestGatewayIsTheFirstAddressWhereIPAMNamesNone(t *testing.T) {
	c, n := read(t, `{"cniVersion":"1.1.0","name":"n","isGateway":true,"ipam":{"type":"dhcp"}}`)
	var got addresses.Allocation
	got.Addresses = []addresses.Address{{Prefix: netip.MustParsePrefix("10.1.0.9/24")}}
	a, err := newAttachment(c, n, got)
	if err != nil || a.Addresses[0].Gateway != netip.MustParseAddr("10.1.0.1") {
		t.Errorf("%+v, %v", a.Addresses, err)
	}
}

func TestDNSOfTheConfigurationComesBeforeThatOfIPAM(t *testing.T) {
	configured := types.DNS{Nameservers: []string{"10.0.0.1"}}
	given := types.DNS{Nameservers: []string{"10.0.0.2"}}
	if got := dnsOf(configured, given); got.Nameservers[0] != "10.0.0.1" {
		t.Errorf("%+v", got)
	}
	if got := dnsOf(types.DNS{}, given); got.Nameservers[0] != "10.0.0.2" {
		t.Errorf("%+v", got)
	}
}
