package portmap

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
)

func pod(c Config) Pod {
	return Pod{
		Config: c,
		Owner:  ipam.Owner{ContainerID: "abc", IfName: "eth0"},
		Ports: []hostnat.Port{
			{HostPort: 8080, Protocol: "tcp", Pod: netip.MustParseAddrPort("10.0.0.2:80")},
			{
				HostIP:   netip.MustParseAddr("192.0.2.1"),
				HostPort: 53,
				Protocol: "udp",
				Pod:      netip.MustParseAddrPort("10.0.0.2:5353"),
			},
			{HostPort: 8080, Protocol: "tcp", Pod: netip.MustParseAddrPort("[fd00::2]:80")},
		},
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")},
	}
}

func rulesOf(p Pod, is6 bool) (all []string) {
	ports, own, _ := p.ofFamily(is6)
	for _, r := range p.entries(ports, is6) {
		all = append(all, strings.Join(r, " "))
	}
	for _, port := range ports {
		for _, r := range p.translation(port, own) {
			all = append(all, strings.Join(r, " "))
		}
	}
	return all
}

const entry = `-m comment --comment dnat name: "n" id: "abc" -m multiport -p `

func TestRulesOfIPTablesAreUpstreams(t *testing.T) {
	p := pod(Config{Network: "n", SNAT: true, Conditions4: []string{"!", "-s", "10.9.0.0/16"}})
	want := []string{
		entry + "tcp --destination-ports 8080 ! -s 10.9.0.0/16",
		entry + "udp --destination-ports 53 ! -s 10.9.0.0/16",
		"-p tcp --dport 8080 -s 10.0.0.2/24 -j CNI-HOSTPORT-SETMARK",
		"-p tcp --dport 8080 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK",
		"-p tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80",
		"-p udp --dport 53 -d 192.0.2.1 -s 10.0.0.2/24 -j CNI-HOSTPORT-SETMARK",
		"-p udp --dport 53 -d 192.0.2.1 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK",
		"-p udp --dport 53 -d 192.0.2.1 -j DNAT --to-destination 10.0.0.2:5353",
	}
	if d := cmp.Diff(want, rulesOf(p, false)); d != "" {
		t.Error(d)
	}

	want = []string{
		entry + "tcp --destination-ports 8080",
		"-p tcp --dport 8080 -s fd00::2/64 -j CNI-HOSTPORT-SETMARK",
		"-p tcp --dport 8080 -j DNAT --to-destination [fd00::2]:80",
	}
	if d := cmp.Diff(want, rulesOf(p, true)); d != "" {
		t.Error(d)
	}
}

func TestMasqueradeAllMarksWhateverTheSourceIs(t *testing.T) {
	p := pod(Config{
		Network:       "n",
		SNAT:          true,
		MasqueradeAll: true,
		SetMarkChain:  "KUBE-MARK-MASQ",
	})
	if got := rulesOf(p, false)[2]; got != "-p tcp --dport 8080 -s 0.0.0.0/0 -j KUBE-MARK-MASQ" {
		t.Error(got)
	}
	p = pod(Config{Network: "n"})
	if got := fmt.Sprint(rulesOf(p, false)); strings.Contains(got, "MARK") {
		t.Error(got)
	}
}

func TestAMultiportMatchTakes15Ports(t *testing.T) {
	p := pod(Config{Network: "n"})
	for i := range 20 {
		p.Ports = append(p.Ports, hostnat.Port{
			HostPort: uint16(9000 + i),
			Protocol: "tcp",
			Pod:      netip.MustParseAddrPort("10.0.0.2:80"),
		})
	}

	ports, _, _ := p.ofFamily(false)
	rules := p.entries(ports, false)
	if len(rules) != 3 || strings.Count(rules[0][len(rules[0])-1], ",") != 14 {
		t.Errorf("%q", rules)
	}
}

func TestAZoneIsNoTextOfNft(t *testing.T) {
	p := pod(Config{Network: "n"})
	p.Ports[2].HostIP = netip.MustParseAddr("fe80::1%x drop\nflush ruleset")
	want := "add rule ip6 cni_hostport hostports ip6 saddr fd00::3 ip6 daddr fe80::1 tcp dport 8080 " +
		"dnat to [fd00::2]:80 comment \"abc\"\n"
	if got := p.script("ip6", []string{"ip6 saddr fd00::3"}, p.Ports[2:]); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The names are shared with upstream's plugins, which look for them.
func TestNamesAreUpstreams(t *testing.T) {
	if got := chainOf("test", "abc"); len(got) != 28 || !strings.HasPrefix(got, "CNI-DN-") {
		t.Error(got)
	}
	if got := comment(strings.Repeat("n", 300), "abc"); len(got) != 256 {
		t.Error(len(got))
	}
}
