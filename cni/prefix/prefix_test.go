package prefix_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/trivet-node/trivet/cni/prefix"
)

func TestLastAndAfterAreTheEndsOfAPrefix(t *testing.T) {
	for _, c := range []struct{ prefix, last, after string }{
		{"10.1.2.3/24", "10.1.2.255", "10.1.3.0"},
		{"10.0.0.0/8", "10.255.255.255", "11.0.0.0"},
		{"10.1.2.3/32", "10.1.2.3", "10.1.2.4"},
		{"10.1.2.128/25", "10.1.2.255", "10.1.3.0"},
		{"0.0.0.0/0", "255.255.255.255", "invalid IP"},
		{"fd00::/64", "fd00::ffff:ffff:ffff:ffff", "fd00:0:0:1::"},
		{"fd00::7/127", "fd00::7", "fd00::8"},
		{"ff00::/8", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "invalid IP"},
	} {
		p := netip.MustParsePrefix(c.prefix)
		if got := prefix.Last(p).String(); got != c.last {
			t.Errorf("last of %s is %s, want %s", p, got, c.last)
		}
		if got := prefix.After(p).String(); got != c.after {
			t.Errorf("after %s is %s, want %s", p, got, c.after)
		}
	}
}

func TestAnAddressWithAMaskKeepsItsHostBits(t *testing.T) {
	for _, text := range []string{"10.1.2.3/24", "10.1.2.3/32", "0.0.0.0/0", "fd00::1/64", "::/0"} {
		p := netip.MustParsePrefix(text)
		back, err := prefix.FromIPNet(prefix.IPNet(p))
		if err != nil || back != p {
			t.Errorf("%s becomes %s, %v", p, back, err)
		}
	}
}

func TestIPv4InIPv6FormIsIPv4(t *testing.T) {
	mapped := net.IPNet{IP: net.ParseIP("10.1.2.3"), Mask: net.CIDRMask(120, 128)}
	got, err := prefix.FromIPNet(mapped)
	if err != nil || got.String() != "10.1.2.3/24" {
		t.Errorf("%s, %v", got, err)
	}
}

func TestWhatIsNotAnAddressWithAPrefixLengthIsAnError(t *testing.T) {
	for name, n := range map[string]net.IPNet{
		"nothing":               {},
		"no mask":               {IP: net.ParseIP("10.0.0.1")},
		"a mask with a hole":    {IP: net.ParseIP("10.0.0.1").To4(), Mask: net.IPMask{255, 0, 255, 0}},
		"a mask of IPv6":        {IP: net.ParseIP("10.0.0.1"), Mask: net.CIDRMask(64, 128)},
		"an address of 3 bytes": {IP: net.IP{1, 2, 3}, Mask: net.CIDRMask(8, 32)},
	} {
		if p, err := prefix.FromIPNet(n); err == nil {
			t.Errorf("%s: %s", name, p)
		}
	}
}
