package ipam

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// newSet returns a set of ranges START-END, in the subnet that the gateway is the first address of.
func newSet(t *testing.T, texts ...string) (set Set) {
	t.Helper()
	for _, text := range texts {
		start, end, _ := strings.Cut(text, "-")
		first := netip.MustParseAddr(start)
		r, err := NewRange(Range{
			Subnet: netip.PrefixFrom(first, 24).Masked(),
			Start:  first,
			End:    netip.MustParseAddr(end),
		})
		if err != nil {
			t.Fatal(err)
		}

		set = append(set, r)
	}

	return set
}

func TestAddressesAreTriedOnceFromTheLastOneOn(t *testing.T) {
	one := newSet(t, "10.1.0.1-10.1.0.4")
	two := newSet(t, "10.1.0.2-10.1.0.3", "10.2.0.2-10.2.0.4")
	for _, c := range []struct {
		set  Set
		last string
		want string
	}{
		// The gateway, 10.1.0.1, is not among them.
		{one, "", "10.1.0.2 10.1.0.3 10.1.0.4"},
		{one, "10.1.0.2", "10.1.0.3 10.1.0.4 10.1.0.2"},
		{one, "10.1.0.4", "10.1.0.2 10.1.0.3 10.1.0.4"},
		{one, "10.9.0.9", "10.1.0.2 10.1.0.3 10.1.0.4"},
		{one, "fd00::1", "10.1.0.2 10.1.0.3 10.1.0.4"},
		{two, "", "10.1.0.2 10.1.0.3 10.2.0.2 10.2.0.3 10.2.0.4"},
		{two, "10.1.0.2", "10.1.0.3 10.2.0.2 10.2.0.3 10.2.0.4 10.1.0.2"},
		{two, "10.2.0.3", "10.2.0.4 10.1.0.2 10.1.0.3 10.2.0.2 10.2.0.3"},
	} {
		last, _ := netip.ParseAddr(c.last)
		var tried []string
		c.set.eachAfter(last, func(a netip.Addr, r Range) bool {
			if !r.Contains(a) {
				t.Errorf("%s is not in %+v", a, r)
			}

			tried = append(tried, a.String())
			return true
		})
		if got := strings.Join(tried, " "); got != c.want {
			t.Errorf("after %q: %s, want %s", c.last, got, c.want)
		}
	}
}

func TestTheSearchEndsWhenAnAddressIsFound(t *testing.T) {
	tried := 0
	newSet(t, "10.1.0.2-10.1.0.9", "10.2.0.2-10.2.0.9").eachAfter(netip.Addr{}, func(netip.Addr, Range) bool {
		tried++
		return tried < 3
	})
	if tried != 3 {
		t.Errorf("%d addresses", tried)
	}
}

// The last address of a family has none behind it.
func TestARangeMayEndWithTheLastAddress(t *testing.T) {
	r, err := NewRange(Range{Subnet: netip.MustParsePrefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126")})
	if err != nil {
		t.Fatal(err)
	}

	count := 0
	Set{r}.eachAfter(netip.Addr{}, func(netip.Addr, Range) bool {
		count++
		return count < 10
	})
	if count != 2 {
		t.Errorf("%d addresses of %+v", count, r)
	}
}

func TestRequestedAddressesAreAssignedToTheirSets(t *testing.T) {
	sets := []Set{
		newSet(t, "10.1.0.2-10.1.0.9"),
		newSet(t, "10.2.0.2-10.2.0.9", "10.3.0.2-10.3.0.9"),
	}

	for _, c := range []struct{ requested, want string }{
		{"", "[invalid IP invalid IP]"},
		{"10.1.0.7", "[10.1.0.7 invalid IP]"},
		{"10.3.0.7 10.1.0.7", "[10.1.0.7 10.3.0.7]"},
		{"10.1.0.7 10.1.0.8", "requested address 10.1.0.8 is in no range of the network"},
		{"10.9.0.7", "requested address 10.9.0.7 is in no range of the network"},
		{"10.3.0.1", "requested address 10.3.0.1 is the gateway of subnet 10.3.0.0/24"},
	} {
		var requested []netip.Addr
		for text := range strings.FieldsSeq(c.requested) {
			requested = append(requested, netip.MustParseAddr(text))
		}

		wanted, err := assign(sets, requested)
		got := fmt.Sprint(wanted)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.requested, got, c.want)
		}
	}
}

func TestSetsDoNotOverlapOrMixFamilies(t *testing.T) {
	mixed := newSet(t, "10.1.0.2-10.1.0.9")
	mixed = append(mixed, newSet(t, "fd01::2-fd01::9")...)
	for want, sets := range map[string][]Set{
		"<nil>":              {newSet(t, "10.1.0.2-10.1.0.9"), newSet(t, "10.1.0.10-10.1.0.20")},
		"range set 0 is emp": {nil},
		"range set 0 mixes ": {mixed},
		"ranges 10.1.0.9-10": {newSet(t, "10.1.0.2-10.1.0.9"), newSet(t, "10.1.0.9-10.1.0.20")},
	} {
		if got := fmt.Sprint(CheckSets(sets)); !strings.HasPrefix(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
