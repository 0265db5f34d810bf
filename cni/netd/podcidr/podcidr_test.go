package podcidr_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// node is created so many minutes after the first one.
func node(name string, minute int, cidr, address string) podcidr.Node {
	return podcidr.Node{
		Name:      name,
		Created:   epoch.Add(time.Duration(minute) * time.Minute),
		PodCIDRs:  prefixes(cidr),
		Addresses: []netip.Addr{netip.MustParseAddr(address)},
	}
}

// What a claim says of the cluster's networks.
const (
	cluster = "10.244.0.0/16"
	unknown = ""
)

// claims are pod CIDRs that somebody claims.
var claims = []struct {
	name    string
	cluster string
	cidr    string
	// why is "" for one that is admitted.
	why string
}{
	{"within the cluster", cluster, "10.244.9.0/24", ""},
	{"a public network", cluster, "8.0.0.0/8", "not within the cluster's pod networks [10.244.0.0/16]"},
	{"around the cluster", cluster, "10.0.0.0/8", "not within the cluster's pod networks"},
	{"of a family that the cluster does not have", cluster, "fd00::/64", "no addresses of its family"},
	{"everything", cluster, "0.0.0.0/0", "that is everything"},
	{
		"half of an earlier one's",
		cluster,
		"10.244.4.128/25",
		"node victim, which was there before, has 10.244.4.0/24",
	},
	{
		"around an earlier one's",
		cluster,
		"10.244.4.0/22",
		"node victim, which was there before, has 10.244.4.0/24",
	},
	{
		"an earlier one's",
		cluster,
		"10.244.4.0/24",
		"node victim, which was there before, has 10.244.4.0/24",
	},
	{
		"Services within the cluster's networks",
		"10.0.0.0/8",
		"10.96.0.0/16",
		"addresses of Services or of the API server, 10.96.0.0/16",
	},
	{
		"a part of the Services, networks unknown",
		unknown,
		"10.96.7.0/24",
		"addresses of Services or of the API server, 10.96.0.0/16",
	},
	{
		"a public network, networks unknown",
		unknown,
		"8.8.8.0/24",
		"neither private nor beside this node's",
	},
	{
		"a large network, networks unknown",
		unknown,
		"10.128.0.0/16",
		"more than 16 times as large as this node's 10.244.0.0/24",
	},
	{"another private network, networks unknown", unknown, "172.16.3.0/24", ""},
	{
		"a node's network, networks unknown",
		unknown,
		"172.31.0.0/24",
		"it holds node far's address 172.31.0.7",
	},
}

func TestHostilePodCIDRsAreRefused(t *testing.T) {
	own := node("own", 0, "10.244.0.0/24", "192.0.2.1")
	victim := node("victim", 2, "10.244.4.0/24", "192.0.2.2")
	far := node("far", 3, "10.244.5.0/24", "172.31.0.7")
	services := prefixes("10.96.0.0/16")

	for _, c := range claims {
		t.Run(c.name, func(t *testing.T) {
			rules := podcidr.Rules{Services: services}
			if c.cluster != unknown {
				rules.Cluster = prefixes(c.cluster)
			}

			hostile := node("hostile", 5, c.cidr, "192.0.2.66")
			admitted, refused := rules.Admit(own, []podcidr.Node{hostile, own, victim, far})

			if c.why == "" {
				if len(refused) != 0 || len(admitted[0].PodCIDRs) != 1 {
					t.Fatalf("refused %v", refused)
				}

				return
			}

			if len(refused) != 1 || refused[0].Node.Name != "hostile" ||
				!strings.Contains(refused[0].Why, c.why) {
				t.Fatalf("refused %v, want %q", refused, c.why)
			}

			if len(admitted[0].PodCIDRs) != 0 || len(admitted[2].PodCIDRs) != 1 {
				t.Errorf("admitted %+v", admitted)
			}
		})
	}
}

func TestTheNodeThatWasThereFirstWinsWhateverTheOrderAndTheNames(t *testing.T) {
	first := node("z-first", 1, "10.244.1.0/24", "192.0.2.1")
	second := node("a-second", 2, "10.244.0.0/16", "192.0.2.2")
	rules := podcidr.Rules{Cluster: prefixes("10.244.0.0/16")}
	for _, all := range [][]podcidr.Node{{first, second}, {second, first}} {
		if _, refused := rules.Admit(second, all); len(refused) != 1 || refused[0].Node.Name != "a-second" {
			t.Errorf("refused %v", refused)
		}
	}
}

// An address says nothing against a pod CIDR when it can only be meant to: a Node sets its addresses itself,
// and at any time.
func TestAnEarlierNodeTakesNoPodCIDRAwayByAnAddress(t *testing.T) {
	liar := node("liar", 1, "10.244.1.0/24", "10.244.2.9")
	late := node("late", 2, "10.244.2.0/24", "192.0.2.2")
	rules := podcidr.Rules{Cluster: prefixes("10.244.0.0/16")}
	if _, refused := rules.Admit(late, []podcidr.Node{liar, late}); len(refused) != 0 {
		t.Errorf("refused %v", refused)
	}

	liar = node("liar", 1, "10.244.2.0/24", "192.0.2.2")
	late = node("late", 2, "10.244.1.0/24", "10.244.2.9")
	if _, refused := (podcidr.Rules{}).Admit(late, []podcidr.Node{liar, late}); len(refused) != 0 {
		t.Errorf("a later Node's address took an earlier one's pod CIDR: %v", refused)
	}
}

func TestPublicPodCIDRsAreLikelyBesideTheOwnOne(t *testing.T) {
	own := node("own", 1, "2001:db8:1::/64", "2001:db8::1")
	near := node("near", 2, "2001:db8:2::/64", "2001:db8::2")
	other := node("other", 3, "2001:4860:4860::/64", "2001:db8::3")
	_, refused := podcidr.Rules{}.Admit(own, []podcidr.Node{own, near, other})
	if len(refused) != 1 || refused[0].Node.Name != "other" {
		t.Errorf("refused %v", refused)
	}
}

func many(n int) []podcidr.Node {
	all := make([]podcidr.Node, n)
	for i := range all {
		name := fmt.Sprintf("n%05d", i)
		cidr := fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)
		all[i] = node(name, i, cidr, fmt.Sprintf("172.16.%d.%d", i/256, i%256))
	}
	return all
}

// Five times as many Nodes may take five times as long, not twenty-five times.
func BenchmarkAdmit(b *testing.B) {
	for _, n := range []int{1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			all := many(n)
			rules := podcidr.Rules{Cluster: prefixes("10.0.0.0/8")}
			for b.Loop() {
				if _, refused := rules.Admit(all[0], all); len(refused) != 0 {
					b.Fatal(refused[0])
				}
			}
		})
	}
}

// FuzzAdmit compares with the rule itself: what is admitted never overlaps, and what is refused for another's
// sake does.
func FuzzAdmit(f *testing.F) {
	f.Add([]byte{1, 0, 24, 2, 0, 16, 1, 128, 25})
	f.Fuzz(func(t *testing.T, data []byte) {
		var all []podcidr.Node
		for i := 0; i+2 < len(data) && len(all) < 50; i += 3 {
			a := netip.AddrFrom4([4]byte{10, data[i], data[i+1], 0})
			p := netip.PrefixFrom(a, 8+int(data[i+2])%25).Masked()
			all = append(all, podcidr.Node{
				Name:     fmt.Sprint(i),
				Created:  epoch.Add(time.Duration(i)),
				PodCIDRs: []netip.Prefix{p},
			})
		}

		admitted, refused := podcidr.Rules{Cluster: prefixes("10.0.0.0/8")}.Admit(podcidr.Node{}, all)
		overlaps := func(p netip.Prefix, before time.Time) bool {
			for _, n := range admitted {
				for _, other := range n.PodCIDRs {
					if other.Overlaps(p) && n.Created.Before(before) {
						return true
					}
				}
			}

			return false
		}

		for _, n := range admitted {
			for _, p := range n.PodCIDRs {
				if overlaps(p, n.Created) {
					t.Fatalf("%s of %s overlaps an earlier one", p, n.Name)
				}
			}
		}

		for _, r := range refused {
			if !overlaps(r.CIDR, r.Node.Created) {
				t.Fatalf("refused without reason: %s", r)
			}
		}
	})
}
