package hostnat

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"

	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/internal/testenv"
)

// full uses all rules.
var full = Config{
	Network:    "test",
	Bridge:     "br0",
	Subnets:    []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
	Masquerade: true,
	NoMasq:     []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	SNAT:       true,
	Ports:      true,
}

// text writes rules about as nft(8) does, register by register.
func text(chains []chain) string {
	var out strings.Builder
	for _, c := range chains {
		name := c.name
		if strings.HasPrefix(name, markerPrefix) {
			name = markerPrefix + "HASH"
		}

		fmt.Fprintf(&out, "chain %s", name)
		if c.hook != nil {
			fmt.Fprintf(&out, " type %s hook %d priority %d", c.kind, *c.hook, *c.priority)
		}

		fmt.Fprintln(&out)
		for _, r := range c.rules {
			var words []string
			for _, e := range r {
				words = append(words, word(e))
			}

			fmt.Fprintf(&out, "  %s\n", strings.Join(words, ", "))
		}
	}

	return out.String()
}

// The words of some constants.
var (
	metaKeys = map[expr.MetaKey]string{
		expr.MetaKeyNFPROTO: "nfproto",
		expr.MetaKeyL4PROTO: "l4proto",
		expr.MetaKeyIIFNAME: "iifname",
		expr.MetaKeyOIFNAME: "oifname",
	}
	layers = map[expr.PayloadBase]string{
		expr.PayloadBaseNetworkHeader:   "ip",
		expr.PayloadBaseTransportHeader: "th",
	}
	verdicts = map[expr.VerdictKind]string{
		expr.VerdictJump:   "jump ",
		expr.VerdictReturn: "return",
		expr.VerdictDrop:   "drop",
	}
)

func word(e expr.Any) string {
	switch e := e.(type) {
	case *expr.Meta:
		return fmt.Sprintf("r%d = %s", e.Register-nft.Reg0, metaKeys[e.Key])
	case *expr.Payload:
		const format = "r%d = %s[%d:%d]"
		return fmt.Sprintf(format, e.DestRegister-nft.Reg0, layers[e.Base], e.Offset, e.Offset+e.Len)
	case *expr.Bitwise:
		return fmt.Sprintf("r%d &= %x", e.DestRegister-nft.Reg0, e.Mask)
	case *expr.Cmp:
		return comparison(e)
	case *expr.Lookup:
		return lookupWord(e)

	case *expr.NAT:
		return fmt.Sprintf("dnat to r%d . r%d", e.RegAddrMin-nft.Reg0, e.RegProtoMin-nft.Reg0)
	case *expr.Verdict:
		return verdicts[e.Kind] + e.Chain
	case *expr.Masq:
		return "masquerade"
	case *expr.Fib:
		return fmt.Sprintf("r%d = fib daddr type", e.Register-nft.Reg0)
	case *expr.Ct:
		return fmt.Sprintf("r%d = ct status", e.Register-nft.Reg0)
	}

	return fmt.Sprintf("%T", e)
}

func comparison(e *expr.Cmp) string {
	op := "=="
	if e.Op == expr.CmpOpNeq {
		op = "!="
	}
	// The name of an interface is padded to 16 bytes.
	name := strings.TrimRight(string(e.Data), "\x00")
	if len(e.Data) == 16 && len(name) < 16 {
		return fmt.Sprintf("r%d %s %q", e.Register-nft.Reg0, op, name)
	}
	return fmt.Sprintf("r%d %s %x", e.Register-nft.Reg0, op, e.Data)
}

func lookupWord(e *expr.Lookup) string {
	switch {
	case e.IsDestRegSet:
		return fmt.Sprintf("r0 = @%s[r0]", e.SetName)
	case e.Invert:
		return fmt.Sprintf("r0 not in @%s", e.SetName)
	}
	return fmt.Sprintf("r0 in @%s", e.SetName)
}

func TestRulesOfATable(t *testing.T) {
	var out strings.Builder
	bare := Config{Network: "test", Bridge: "br0"}
	routed := full
	routed.HostRouted = true
	without := full
	without.SNAT = false
	without.Masquerade = false
	for _, c := range []struct {
		name   string
		config Config
	}{
		{"everything", full},
		{"through the host", routed},
		{"host ports without snat and masquerading", without},
		{"nothing", bare},
	} {
		fmt.Fprintf(&out, "# %s\n%s\n", c.name, text(newRuleset(c.config).chains()))
	}

	testenv.Golden(t, "rules.txt", out.String())
}

func TestTheMarkerNamesTheConfiguration(t *testing.T) {
	other := full
	other.SNAT = false
	if newRuleset(full).marker() == newRuleset(other).marker() {
		t.Error("two configurations have one marker")
	}

	// A change of the fields of Config makes every node write its rules once more.
	if got := newRuleset(full).marker(); got != "config_88179d9cf6af" {
		t.Errorf("the marker of a configuration was another one before: %s", got)
	}
}

func TestNamesOfTablesAreWhatNftCanWrite(t *testing.T) {
	long := strings.Repeat("n", 300)
	seen := map[string]bool{}
	for network, want := range map[string]string{
		"trivet":   "cni_trivet",
		"a.b":      "cni_a_b_",
		"a/b":      "cni_a_b_",
		"":         "cni_",
		long:       "cni_nnnn",
		long + "x": "cni_nnnn",
	} {
		name := tableName(network)
		if !strings.HasPrefix(name, want) || len(name) > 255 || strings.ContainsAny(name, "./") ||
			seen[name] {
			t.Errorf("network %q has table %s", network, name)
		}

		seen[name] = true
	}
}

func TestIntervalsLeaveOutWhatIsInsideOthers(t *testing.T) {
	table := newRuleset(full)
	var prefixes []netip.Prefix
	for _, p := range []string{
		"10.1.0.0/24", "10.0.0.0/8", "10.0.0.0/8", "fd00::/8", "224.0.0.0/4", "240.0.0.0/4",
	} {
		prefixes = append(prefixes, netip.MustParsePrefix(p))
	}

	got := map[string][]string{}
	for _, f := range table.families {
		for _, e := range f.intervals(prefixes) {
			a, _ := netip.AddrFromSlice(e.Key)
			end := ""
			if e.IntervalEnd {
				end = " end"
			}

			got[f.noMasq.Name] = append(got[f.noMasq.Name], a.String()+end)
		}
	}

	want := map[string][]string{
		// The last interval ends with the last address, for which there is no element.
		"nomasq4": {"10.0.0.0", "11.0.0.0 end", "224.0.0.0", "240.0.0.0 end", "240.0.0.0"},
		"nomasq6": {"fd00::", "fe00:: end"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAnElementIsReadAsItIsWritten(t *testing.T) {
	table := newRuleset(full)
	for _, p := range []Port{
		{HostPort: 53, Protocol: "udp", Pod: netip.MustParseAddrPort("10.1.0.9:5353")},
		{HostPort: 53, Protocol: "udp", Pod: netip.MustParseAddrPort("[fd01::9]:5353")},
		{
			HostIP:   netip.MustParseAddr("192.0.2.1"),
			HostPort: 53,
			Protocol: "udp",
			Pod:      netip.MustParseAddrPort("10.1.0.9:53"),
		},
		{
			HostIP:   netip.MustParseAddr("2001:db8::1"),
			HostPort: 53,
			Protocol: "udp",
			Pod:      netip.MustParseAddrPort("[fd01::9]:53"),
		},
		{HostPort: 80, Protocol: "tcp", Pod: netip.MustParseAddrPort("10.1.0.9:8080")},
	} {
		f := table.familyOf(p.Pod.Addr())
		set := f.mapOf(p)
		e := f.portElement(p)
		if got := f.podOf(set, e); got != p.Pod.Addr() {
			t.Errorf("%s leads to %s", p, got)
		}
		if got := f.podOf(f.hairpin, f.hairpinElement(p.Pod.Addr())); got != p.Pod.Addr() {
			t.Errorf("the hairpin of %s is of %s", p, got)
		}

		got, ok := f.udpPort(set, e)
		if ok != (p.Protocol == "udp") {
			t.Errorf("%s is taken for UDP: %v", p, ok)
		}
		if ok && (got.HostIP != p.HostIP || got.HostPort != p.HostPort || got.Pod.Addr() != p.Pod.Addr()) {
			t.Errorf("%+v is read as %+v", p, got)
		}
	}
}

func TestAValidPortHasAKeyThatItsMapCanHold(t *testing.T) {
	table := newRuleset(full)
	v4, v6 := netip.MustParseAddrPort("10.1.0.9:80"), netip.MustParseAddrPort("[fd01::9]:80")
	mapped := netip.MustParseAddrPort("[::ffff:10.1.0.9]:80")
	for want, ports := range map[bool][]Port{
		true: {
			{HostPort: 53, Protocol: "udp", Pod: v4},
			{HostPort: 53, Protocol: "sctp", Pod: v6},
			{HostIP: netip.MustParseAddr("192.0.2.1"), Protocol: "tcp", Pod: v4},
			{HostIP: netip.MustParseAddr("fe80::1%eth0"), Protocol: "tcp", Pod: v6},
			{HostIP: mapped.Addr(), Protocol: "tcp", Pod: mapped},
		},
		false: {
			{},
			{HostPort: 53, Pod: v4},
			{HostPort: 53, Protocol: "TCP", Pod: v4},
			{HostPort: 53, Protocol: "tcp"},
			{HostIP: netip.MustParseAddr("192.0.2.1"), Protocol: "tcp", Pod: v6},
			{HostIP: netip.MustParseAddr("fd00::1"), Protocol: "tcp", Pod: v4},
		},
	} {
		for _, p := range ports {
			f := table.familyOf(p.Pod.Addr())
			size := 8
			if p.HostIP.IsValid() {
				size += f.Size
			}

			e := f.portElement(p)
			fits := len(e.Key) == size && len(e.Val) == f.Size+4
			if p.IsValid() != want || want && !fits {
				t.Errorf("%+v is valid: %v, its key has %d bytes", p, p.IsValid(), len(e.Key))
			}
		}
	}
}
