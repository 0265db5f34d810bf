package sourceguard

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
)

const (
	own      = "0a580a580002"
	other    = "0a580a580003"
	own4     = "0a580002"
	other4   = "0a580003"
	none4    = "00000000"
	own6     = "fd880000000000000000000000000002"
	second6  = "fd990000000000000000000000000002"
	other6   = "fd880000000000000000000000000003"
	local6   = "fe80000000000000085800fffe580002"
	none6    = "00000000000000000000000000000000"
	nearby6  = "fd880000000000000001000000000002"
	icmp     = "3aff"
	udp      = "1140"
	hop255   = "00ff"
	hop1     = "0001"
	fragment = "2cff"
)

// frame is one from a MAC address.
func frame(mac, etherType string, payload ...string) string {
	return "ffffffffffff" + mac + etherType + strings.Join(payload, "")
}

func ip4(source string) string {
	return "4500001c000040004011ffff" + source + "08080808" + strings.Repeat("00", 8)
}

// ip6 has a next header and a hop limit in one.
func ip6(next, source string, payload ...string) string {
	return "600000000008" + next + source + none6 + strings.Join(payload, "") + strings.Repeat("00", 8)
}

func arp(mac, source string) string {
	return "0001080006040001" + mac + source + strings.Repeat("00", 10)
}

func advertisement(target string) string { return "88000000" + "60000000" + target }

var frames = map[string]struct {
	frame   string
	dropped bool
}{
	"IPv4":                          {frame(own, "0800", ip4(own4)), false},
	"the second address":            {frame(own, "0800", ip4("0a580063")), false},
	"IPv4 of another":               {frame(own, "0800", ip4(other4)), true},
	"IPv4 of nobody":                {frame(own, "0800", ip4(none4)), true},
	"another MAC":                   {frame(other, "0800", ip4(own4)), true},
	"a MAC that ends otherwise":     {frame("0a580a580a02", "0800", ip4(own4)), true},
	"ARP":                           {frame(own, "0806", arp(own, own4)), false},
	"ARP that asks if one is free":  {frame(own, "0806", arp(own, none4)), false},
	"ARP for another":               {frame(own, "0806", arp(own, other4)), true},
	"ARP with another MAC":          {frame(own, "0806", arp(other, own4)), true},
	"ARP of another kind":           {frame(own, "0806", "0006"+arp(own, own4)[4:]), true},
	"IPv6":                          {frame(own, "86dd", ip6(udp, own6)), false},
	"IPv6 of another":               {frame(own, "86dd", ip6(udp, other6)), true},
	"IPv6 that differs within":      {frame(own, "86dd", ip6(udp, nearby6)), true},
	"IPv6 of the link":              {frame(own, "86dd", ip6(udp, local6)), false},
	"IPv6 of nobody":                {frame(own, "86dd", ip6(icmp, none6, "87")), false},
	"a report of groups":            {frame(own, "86dd", ip6(hop1, local6, "3a000502", "00008f00")), false},
	"options, near":                 {frame(own, "86dd", ip6(hop255, own6, "3a000502", "00008800")), true},
	"fragment, near":                {frame(own, "86dd", ip6(fragment, own6)), true},
	"an echo":                       {frame(own, "86dd", ip6(icmp, own6, "80000000")), false},
	"one that ends before its kind": {frame(own, "86dd", "600000000000"+icmp+other6+none6), true},
	"an echo of another":            {frame(own, "86dd", ip6(icmp, other6, "80000000")), true},
	"an advertisement":              {frame(own, "86dd", ip6(icmp, own6, advertisement(own6))), false},
	"one of the link":               {frame(own, "86dd", ip6(icmp, local6, advertisement(local6))), false},
	"one of the second address":     {frame(own, "86dd", ip6(icmp, own6, advertisement(second6))), false},
	"one for another":               {frame(own, "86dd", ip6(icmp, local6, advertisement(other6))), true},
	"one for itself, of another":    {frame(own, "86dd", ip6(icmp, other6, advertisement(own6))), true},
	"a tag inside":                  {frame(own, "8100", "00010800", ip4(own4)), true},
	"a tag of a provider inside":    {frame(own, "88a8", "00010800", ip4(own4)), true},
	"another protocol":              {frame(own, "88cc", strings.Repeat("00", 50)), true},
	"a frame of 802.3":              {frame(own, "0026", "aaaa03000000", "0800", ip4(own4)), true},
	"IPv4 mapped, of IPv6's header": {frame(own, "86dd", ip6(udp, "00000000000000000000ffff"+own4)), true},
}

func guardOf(addresses ...string) Guard {
	g := Guard{MAC: net.HardwareAddr{0x0a, 0x58, 0x0a, 0x58, 0, 2}}
	for _, a := range addresses {
		g.Addresses = append(g.Addresses, netip.MustParseAddr(a))
	}
	return g
}

// verdict runs a program on a frame.
func verdict(t *testing.T, program block, frame string) bpf.RetConstant {
	t.Helper()
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	data, err := hex.DecodeString(frame)
	if err != nil {
		t.Fatal(err)
	}
	v, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return bpf.RetConstant{Val: uint32(v)}
}

func TestOnlyWhatIsFromThePodItselfPasses(t *testing.T) {
	guards := map[string]Guard{
		"of two addresses each": guardOf("10.88.0.2", "fd88::2", "10.88.0.99", "fd99::2"),
	}

	// More than a conditional jump of BPF reaches across.
	many := slices.Clone(guards["of two addresses each"].Addresses)
	for i := range 100 {
		many = append(many, netip.MustParseAddr(fmt.Sprintf("10.99.0.%d", i)),
			netip.MustParseAddr(fmt.Sprintf("fd77::%d", i)))
	}
	many = slices.Insert(many, 0, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"))
	guards["of a hundred addresses each"] = Guard{MAC: guardOf().MAC, Addresses: many}

	for kind, g := range guards {
		for name, f := range frames {
			want := pass
			if f.dropped {
				want = drop
			}
			if got := verdict(t, g.instructions(), f.frame); got != want {
				t.Errorf("%s, %s: %v, want %v", kind, name, got, want)
			}
		}
	}
}

func TestWithoutAddressesTheMACAddressAloneCounts(t *testing.T) {
	for name, f := range frames {
		mac, err := hex.DecodeString(f.frame[12:24])
		if err != nil {
			t.Fatal(err)
		}
		want := drop
		if bytes.Equal(mac, guardOf().MAC) {
			want = pass
		}
		if got := verdict(t, guardOf().instructions(), f.frame); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// A pod of IPv4 alone has a link-local address, and no other of IPv6.
func TestAPodOfOneFamilyIsNothingInTheOther(t *testing.T) {
	for name, dropped := range map[string]bool{"IPv4": false, "IPv6": true, "IPv6 of the link": false} {
		got := verdict(t, guardOf("10.88.0.2").instructions(), frames[name].frame)
		if (got == drop) != dropped {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := verdict(t, guardOf("fd88::2").instructions(), frames["ARP"].frame); got != drop {
		t.Errorf("ARP of a pod of IPv6: %v", got)
	}
}
