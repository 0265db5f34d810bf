package bridge

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
)

var pod = ipam.Owner{ContainerID: "pod", IfName: "eth0"}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

// address returns an address with its gateway, which may be "".
func address(prefix, gateway string) Address {
	a := Address{Prefix: netip.MustParsePrefix(prefix)}
	if gateway != "" {
		a.Gateway = netip.MustParseAddr(gateway)
	}
	return a
}

func TestABridgeCannotHaveAnotherAddressBesideAGateway(t *testing.T) {
	for _, c := range []struct {
		have []netip.Prefix
		want string
		// conflicts are the addresses that have to go.
		conflicts string
	}{
		{nil, "10.1.0.1/24", "[]"},
		{prefixes("10.1.0.1/24"), "10.1.0.1/24", "[]"},
		{prefixes("10.1.0.2/24"), "10.1.0.1/24", "[10.1.0.2/24]"},
		{prefixes("10.2.0.1/24"), "10.1.0.1/24", "[10.2.0.1/24]"},
		{prefixes("10.1.0.1/16"), "10.1.0.1/24", "[10.1.0.1/16]"},
		{prefixes("fd01::1/64"), "10.1.0.1/24", "[]"},
		{prefixes("fd02::1/64"), "fd01::1/64", "[]"},
		{prefixes("fd01::2/64", "fd01::1/48"), "fd01::1/64", "[fd01::2/64 fd01::1/48]"},
	} {
		got := fmt.Sprint(conflicting(c.have, netip.MustParsePrefix(c.want)))
		if got != c.conflicts {
			t.Errorf("%s beside %v: %s, want %s", c.want, c.have, got, c.conflicts)
		}
	}
}

func TestOneGatewayOfASetHasToFit(t *testing.T) {
	have := prefixes("10.1.0.1/24", "fd01::1/64")
	for _, c := range []struct {
		set  []Address
		fits bool
	}{
		{[]Address{address("10.1.0.9/24", "10.1.0.1")}, true},
		{[]Address{address("10.7.0.9/24", "10.7.0.1")}, false},
		{[]Address{address("10.7.0.9/24", "10.7.0.1"), address("10.1.0.9/24", "10.1.0.1")}, true},
		{[]Address{address("10.7.0.9/24", "")}, true},
		{[]Address{address("fd07::9/64", "fd07::1")}, true},
		{[]Address{address("fd01::9/64", "fd01::2")}, false},
	} {
		err := oneFits(have, c.set)
		if (err == nil) != c.fits {
			t.Errorf("%v: %v", c.set, err)
		}
		if err != nil && !strings.Contains(err.Error(), "forceAddress replaces it") {
			t.Errorf("%v does not say what to do", err)
		}
	}
}

func TestFormerGatewaysAreThoseThatNoSubnetHas(t *testing.T) {
	have := prefixes("10.1.0.1/24", "10.2.0.1/24", "fd01::1/64")
	gateways := []Address{address("10.2.0.0/24", "10.2.0.1"), address("fd02::/64", "fd02::1")}
	for want, formers := range map[string]string{
		"10.2.0.1/24": "[10.1.0.1/24]",
		"fd02::1/64":  "[fd01::1/64]",
	} {
		if got := fmt.Sprint(former(have, gateways, netip.MustParsePrefix(want))); got != formers {
			t.Errorf("for %s: %s, want %s", want, got, formers)
		}
	}
}

func TestRoutesOfAPod(t *testing.T) {
	defaults := []rtnl.Route{
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.1")},
		{Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fd01::1")},
	}

	addresses := []Address{
		address("10.1.0.9/24", "10.1.0.1"),
		address("10.1.0.10/24", "10.1.0.1"),
		address("fd01::9/64", "fd01::1"),
		address("fd02::9/64", ""),
	}

	for _, c := range []struct {
		hostRouted bool
		want       []string
	}{
		{false, []string{"0.0.0.0/0 via 10.1.0.1", "::/0 via fd01::1"}},
		{true, []string{
			"10.1.0.1/32 on link",
			"10.1.0.0/24 via 10.1.0.1",
			"fd01::1/128 on link",
			"fd01::/64 via fd01::1",
			"0.0.0.0/0 via 10.1.0.1",
			"::/0 via fd01::1",
		}},
	} {
		var got []string
		a := Attachment{Owner: pod, Addresses: addresses, Routes: append(defaults, defaults[0])}
		for _, r := range podRoutes(Config{HostRouted: c.hostRouted}, a) {
			if r.Gateway.IsValid() {
				got = append(got, fmt.Sprintf("%s via %s", r.Dst, r.Gateway))
			} else {
				got = append(got, fmt.Sprintf("%s on link", r.Dst))
			}
		}

		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("hostRouted %v: %s", c.hostRouted, d)
		}
	}
}

func TestSettingsOfAPod(t *testing.T) {
	only4 := []Address{address("10.1.0.9/24", "10.1.0.1")}
	both := append(only4, address("fd01::9/64", "fd01::1"))
	const noAdvertisements = "net/ipv6/conf/eth0/accept_ra=0"
	ipv6 := []string{
		"net/ipv6/conf/eth0/disable_ipv6=0",
		"net/ipv6/conf/eth0/accept_redirects=0",
		"net/ipv6/conf/lo/disable_ipv6=0",
	}

	noRedirects := []string{"net/ipv4/conf/all/accept_redirects=0"}

	for name, c := range map[string]struct {
		config    Config
		addresses []Address
		want      []string
	}{
		// Advertisements are the only way to an address there.
		"no IPAM": {Config{}, nil, nil},
		"IPv4":    {Config{}, only4, []string{noAdvertisements}},
		"both":    {Config{}, both, append(ipv6, noAdvertisements)},
		"checked for duplicates": {
			Config{DAD: true},
			both,
			append(ipv6, "net/ipv6/conf/eth0/ndisc_notify=1", noAdvertisements),
		},
		"through the host": {
			Config{HostRouted: true},
			only4,
			append(noRedirects, noAdvertisements),
		},
	} {
		var got []string
		for _, s := range podSettings(c.config, Attachment{Owner: pod, Addresses: c.addresses}) {
			got = append(got, s.Name+"="+s.Value)
		}

		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestMACAddressesAreTheSameEachTime(t *testing.T) {
	v4 := []Address{address("10.1.2.3/24", "10.1.2.1")}
	v6 := []Address{address("fd01::9/64", "fd01::1")}
	if got := podMAC(Attachment{Owner: pod, Addresses: v4}).String(); got != "0a:58:0a:01:02:03" {
		t.Errorf("a pod with IPv4 has %s", got)
	}

	wanted := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	if got := podMAC(Attachment{Owner: pod, Addresses: v4, MAC: wanted}); got.String() != wanted.String() {
		t.Errorf("a pod for which the runtime asks for %s has %s", wanted, got)
	}

	seen := map[string]string{}
	for name, mac := range map[string]net.HardwareAddr{
		"a pod with IPv6 alone": podMAC(Attachment{Owner: pod, Addresses: v6}),
		"another one": podMAC(Attachment{
			Owner:     ipam.Owner{ContainerID: "x"},
			Addresses: v6,
		}),
		"a bridge":                       bridgeMAC(Config{Name: "br0", IsGateway: true}, v4),
		"a bridge with another gateway":  bridgeMAC(Config{Name: "br0", IsGateway: true}, v6),
		"another bridge":                 bridgeMAC(Config{Name: "br1", IsGateway: true}, v4),
		"a bridge that is not a gateway": bridgeMAC(Config{Name: "br0"}, v4),
		"a bridge without IPAM":          bridgeMAC(Config{Name: "br0", IsGateway: true}, nil),
	} {
		if mac[0]&3 != 2 {
			t.Errorf("%s has %s, which is not a local unicast address", name, mac)
		}
		if other := seen[mac.String()]; other != "" {
			t.Errorf("%s and %s have %s", name, other, mac)
		}

		seen[mac.String()] = name
	}
}

func TestOnlyAddressesWithAnotherMACAreAnnounced(t *testing.T) {
	addresses := []Address{address("10.1.0.9/24", ""), address("fd01::9/64", "")}
	if got := fmt.Sprint(withNewMAC(Attachment{Addresses: addresses})); got != "[fd01::9]" {
		t.Errorf("%s", got)
	}
	chosen := Attachment{Addresses: addresses, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}}
	if got := fmt.Sprint(withNewMAC(chosen)); got != "[10.1.0.9 fd01::9]" {
		t.Errorf("with a MAC address of its own: %s", got)
	}
}

// The frames are as tcpdump decodes them.
func TestAnnouncementsOnTheWire(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	arp := hex.EncodeToString(gratuitousARP(netip.MustParseAddr("10.1.0.9"), mac))
	const wantARP = "ffffffffffff" + "020000000007" + "0806" + "0001080006040001" +
		"020000000007" + "0a010009" + "000000000000" + "0a010009"
	if arp != wantARP {
		t.Errorf("ARP   %s\nwant  %s", arp, wantARP)
	}

	packet := advertisement(netip.MustParseAddr("fd01::9"), mac)
	const wantNDP = "60000000" + "0020" + "3a" + "ff" +
		"fd010000000000000000000000000009" + "ff020000000000000000000000000001" +
		"8800"
	if got := hex.EncodeToString(packet); !strings.HasPrefix(got, wantNDP) || len(packet) != 72 {
		t.Errorf("NDP %s", got)
	}

	// With its checksum in place, the sum over pseudo header and message is zero.
	pseudo := append(packet[8:40:40], 0, 0, 0, 32, 0, 0, 0, unix.IPPROTO_ICMPV6)
	if sum := checksum(append(pseudo, packet[40:]...)); sum != 0 {
		t.Errorf("checksum %x", sum)
	}
}

// differences spoil a port, an interface of a pod, or addresses, each so that a check finds it.
var differences = []struct {
	want  string
	spoil func(port, eth0 *rtnl.Link)
}{
	{"interface veth1 is not a port of bridge br0", func(p, _ *rtnl.Link) { p.Master = 4 }},
	{"interface veth1 is down", func(p, _ *rtnl.Link) { p.Up = false }},
	{"port veth1 of bridge br0 has flags", func(p, _ *rtnl.Link) { p.Port = nil }},
	{"interface veth1 has MTU 1300, not 1400", func(p, _ *rtnl.Link) { p.MTU = 1300 }},
	{"interface eth0 is down", func(_, e *rtnl.Link) { e.Up = false }},
	{"interface eth0 has MAC address ", func(_, e *rtnl.Link) { e.MAC = nil }},
	{"interface eth0 has MTU 1300, not 1400", func(_, e *rtnl.Link) { e.MTU = 1300 }},
}

func TestCheckNamesTheFirstDifference(t *testing.T) {
	bridge := rtnl.Link{Index: 3, Name: "br0", Up: true}
	c := Config{Name: "br0", Port: rtnl.Port{Hairpin: true}}
	a := Attachment{
		Owner:   pod,
		MTU:     1400,
		HostMTU: 1400,
		MAC:     net.HardwareAddr{2, 0, 0, 0, 0, 7},
	}
	port := rtnl.Link{
		Name:   "veth1",
		Master: 3,
		Up:     true,
		MTU:    1400,
		Port:   &rtnl.Port{Hairpin: true},
	}

	eth0 := rtnl.Link{
		Name: "eth0",
		Up:   true,
		MTU:  1400,
		MAC:  a.MAC,
	}

	check := func(port, eth0 rtnl.Link) error {
		return errors.Join(checkPort(c, a, bridge, port), checkInterface(a, eth0, nil))
	}

	if err := check(port, eth0); err != nil {
		t.Error(err)
	}

	for _, d := range differences {
		p, e := port, eth0
		d.spoil(&p, &e)
		if err := check(p, e); err == nil || !strings.HasPrefix(err.Error(), d.want) {
			t.Errorf("%v, want %q", err, d.want)
		}
	}
}

func TestCheckNamesTheAddressThatIsMissing(t *testing.T) {
	a := Attachment{Owner: pod, Addresses: []Address{address("10.1.0.9/24", "10.1.0.1")}}
	c := Config{Name: "br0"}
	up := rtnl.Link{Up: true}
	have := prefixes("10.1.0.9/24", "10.1.0.1/16")
	if err := errors.Join(checkInterface(a, up, have), checkGateways(c, have, a.Addresses)); err != nil {
		t.Error(err)
	}

	const noAddress = "interface eth0 does not have the address 10.1.0.9/24"
	if err := checkInterface(a, up, have[1:]); err == nil || err.Error() != noAddress {
		t.Errorf("%v", err)
	}

	const noGateway = "bridge br0 does not have the gateway address 10.1.0.1"
	if err := checkGateways(c, have[:1], a.Addresses); err == nil || err.Error() != noGateway {
		t.Errorf("%v", err)
	}
}

func TestGarbageIsWhatIsOursAndHasNoOwner(t *testing.T) {
	valid := func(label string) bool { return label == pod.Label() }
	gone := ipam.Owner{ContainerID: "gone", IfName: "eth0"}
	for _, c := range []struct {
		link    rtnl.Link
		garbage bool
	}{
		{rtnl.Link{Alias: Alias("net", pod)}, false},
		{rtnl.Link{Alias: Alias("net", gone)}, true},
		{rtnl.Link{Alias: Alias("net", pod), Group: discardGroup}, true},
		{rtnl.Link{Alias: Alias("net", pod), Group: rtnl.Condemned}, true},
		{rtnl.Link{Alias: Alias("other", gone)}, false},
		{rtnl.Link{Alias: "somebody's"}, false},
		{rtnl.Link{}, false},
	} {
		if got := isGarbage(c.link, "net", valid); got != c.garbage {
			t.Errorf("%+v: %v", c.link, got)
		}
	}
}

// The kernel has 16 bytes for a name and 255 for an alias.
func TestNamesFitTheKernel(t *testing.T) {
	long := ipam.Owner{ContainerID: strings.Repeat("c", 200), IfName: "eth0"}
	network := strings.Repeat("n", 200)
	if name := HostName(network, long); len(name) > 15 || name == HostName("net", long) {
		t.Errorf("name %s", name)
	}
	if a := Alias(network, long); len(a) > 255 || !strings.HasPrefix(a, aliasPrefix(network)) {
		t.Errorf("alias %s", a)
	}
}

func TestAFullBridgeIsExplained(t *testing.T) {
	err := explain(unix.EXFULL, "br0")
	if !strings.Contains(err.Error(), "bridge br0 is full") {
		t.Error(err)
	}
	if err := explain(unix.EPERM, "br0"); !errors.Is(err, unix.EPERM) || err.Error() != unix.EPERM.Error() {
		t.Errorf("another error becomes %v", err)
	}
}
