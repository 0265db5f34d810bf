package routing

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// BenchmarkPlan measures all decisions of a pass: five times as many Nodes may take five times as
// long.
func BenchmarkPlan(b *testing.B) {
	local := []rtnl.InterfaceAddress{{Index: 2, Prefix: netip.MustParsePrefix("172.16.0.1/12")}}

	// Like the addresses of Services with IPVS.
	for i := range 100 {
		a := netip.AddrFrom4([4]byte{10, 255, 0, byte(i)})
		local = append(local, rtnl.InterfaceAddress{Index: 3, Prefix: prefix.Single(a)})
	}

	for _, n := range []int{1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			all := make([]podcidr.Node, n)
			for i := range all {
				all[i] = podcidr.Node{
					Name:      fmt.Sprintf("n%05d", i),
					PodCIDRs:  prefixes(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)),
					Addresses: addresses(fmt.Sprintf("172.16.%d.%d", i/250+1, i%250+1)),
				}
			}

			rules := podcidr.Rules{Cluster: prefixes("10.0.0.0/8")}
			for b.Loop() {
				admitted, _ := rules.Admit(all[0], all)
				plan := NewPlan(Situation{Own: all[0], Nodes: admitted, Local: local})
				if len(plan.Routes) != n || len(plan.Notes) != 0 {
					b.Fatal(len(plan.Routes), plan.Notes[:1])
				}
			}
		})
	}
}
