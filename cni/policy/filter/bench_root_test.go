package filter_test

import (
	"fmt"
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/filter"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// BenchmarkUpdatePolicies measures what a change takes in a cluster of 1,000 policies and 250 pods, all of
// them of this node: compiled, compared and written into the kernel. first is the start of trivet-netd.
func BenchmarkUpdatePolicies(b *testing.B) {
	testenv.Root(b)
	netns := testenv.Netns(b)
	cluster := largeCluster()
	measure := func(name string, change func(round int)) {
		b.Run(name, func(b *testing.B) { benchUpdate(b, netns, &cluster, change) })
	}

	measure("first", nil)
	measure("policy", func(round int) {
		p := *cluster.Policies[round%1000]
		p.Rules[policy.Ingress] = []policy.Rule{{Ports: []policy.Port{exactly(10000 + round)}}}
		cluster.Policies[round%1000] = &p
	})
	measure("pod", func(round int) {
		p := *cluster.Pods[round%250]
		p.Labels = labels.Set{"app": fmt.Sprint("app", round%5)}
		cluster.Pods[round%250] = &p
	})

	measure("all", func(round int) {
		for i, p := range cluster.Policies {
			changed := *p
			first := policy.Rule{Ports: []policy.Port{exactly(20000 + (round+i)%1000)}}
			changed.Rules[policy.Ingress] = append([]policy.Rule{first}, p.Rules[0][:1]...)
			cluster.Policies[i] = &changed
		}
	})
}

func benchUpdate(b *testing.B, netns string, cluster *policy.Cluster, change func(int)) {
	compiler, f := policy.NewCompiler(), filter.New("bench")
	err := namespace.Do(func() error {
		if change != nil {
			if _, err := f.Apply(compiler.Compile(*cluster), filter.Bridge{}); err != nil {
				return err
			}
		}
		for round := 0; b.Loop(); round++ {
			if change == nil {
				compiler, f = policy.NewCompiler(), filter.New("bench")
			} else {
				change(round)
			}
			if _, err := f.Apply(compiler.Compile(*cluster), filter.Bridge{}); err != nil {
				return err
			}
		}
		return f.Remove()
	}, netns)
	if err != nil {
		b.Fatal(err)
	}
}

func exactly(port int) policy.Port {
	return policy.Port{Protocol: tcp, First: uint16(port), Last: uint16(port)}
}

// largeCluster has 25 namespaces of five applications with two pods each, and for each application eight
// policies: for its neighbours, for other namespaces and for networks outside.
func largeCluster() policy.Cluster {
	c := policy.Cluster{Namespaces: map[string]labels.Set{}}
	for n := range 25 {
		ns := fmt.Sprint("ns", n)
		c.Namespaces[ns] = labels.Set{"team": fmt.Sprint("team", n%5)}
		for i := range 10 {
			c.Pods = append(c.Pods, &policy.Pod{
				Namespace: ns,
				Name:      fmt.Sprint("pod", i),
				Labels:    labels.Set{"app": fmt.Sprint("app", i%5)},
				Addresses: []netip.Addr{
					netip.AddrFrom4([4]byte{10, 1, byte(n), byte(i + 1)}),
					netip.AddrFrom16([16]byte{0xfd, 14: byte(n), 15: byte(i + 1)}),
				},
				Local: true,
			})
		}
		for i := range 40 {
			c.Policies = append(c.Policies, largePolicy(ns, i))
		}
	}
	return c
}

func largePolicy(ns string, i int) *policy.Policy {
	app := func(n int) labels.Selector {
		return labels.SelectorFromSet(labels.Set{"app": fmt.Sprint("app", n%5)})
	}
	peers := []policy.Peer{
		{Pods: app(i + 1)},
		{
			Pods:       app(i + 2),
			Namespaces: labels.SelectorFromSet(labels.Set{"team": fmt.Sprint("team", i%5)}),
		},
		{
			Block:  netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), 24),
			Except: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 128}), 26)},
		},
	}
	ports := []policy.Port{
		exactly(8000 + i),
		{Protocol: udp, First: uint16(9000 + i), Last: uint16(9010 + i)},
	}

	p := &policy.Policy{Namespace: ns, Name: fmt.Sprint("policy", i), Pods: app(i)}
	for _, d := range policy.Directions {
		p.Isolates[d] = true
		p.Rules[d] = []policy.Rule{{Peers: peers, Ports: ports}, {Ports: []policy.Port{exactly(53)}}}
	}
	return p
}
