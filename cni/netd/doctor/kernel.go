package doctor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/google/nftables"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/shaping"
	"github.com/trivet-node/trivet/cni/sourceguard"
	"github.com/trivet-node/trivet/cni/sysctl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/undo"
)

// probe is something that the kernel is asked to make.
type probe struct {
	object string
	// level is that of a kernel that cannot, and do what a person should do then.
	level Level
	do    string
	try   func(*rtnl.Conn) error
}

// probes are in the order in which they are reported; later ones use what earlier ones have made.
var probes = []probe{
	{
		object: "links of kind bridge",
		level:  Wrong,
		do:     "load module bridge",
		try: func(c *rtnl.Conn) error {
			return c.Must(rtnl.NewBridge("probe0", net.HardwareAddr{2, 0, 0, 0, 0, 1}, 0))
		},
	},
	{
		object: "links of kind veth",
		level:  Wrong,
		do:     "load module veth",
		try: func(c *rtnl.Conn) error {
			return c.Must(rtnl.NewVeth(rtnl.Veth{
				Name:     "probe1",
				MAC:      net.HardwareAddr{2, 0, 0, 0, 0, 2},
				PeerName: "probe2",
				PeerMAC:  net.HardwareAddr{2, 0, 0, 0, 0, 3},
			}))
		},
	},
	{
		object: "filters that are programs",
		level:  Note,
		do:     "load modules sch_ingress, cls_bpf: without them pods can send with addresses of others",
		try: func(c *rtnl.Conn) error {
			const lo = 1
			return sourceguard.Guard{MAC: make(net.HardwareAddr, 6)}.Ensure(c, lo)
		},
	},
	{
		object: "limits of bandwidth",
		level:  Note,
		do:     "load modules sch_tbf, ifb, act_mirred, cls_u32: without them pods with limits do not start",
		try:    limit,
	},
	{
		object: "links of kind vxlan",
		level:  Note,
		do:     "load module vxlan: pods of nodes that are on no network of this node are not reached",
		try: func(c *rtnl.Conn) error {
			v := rtnl.VXLAN{ID: 1, Local: netip.MustParseAddr("192.0.2.1"), Port: 8472}
			return c.Must(rtnl.NewVXLAN("probe3", net.HardwareAddr{2, 0, 0, 0, 0, 4}, 0, v))
		},
	},
	{
		object: "nftables with address translation and connection tracking",
		level:  Wrong,
		do:     "load modules nf_tables, nft_chain_nat, nft_masq, nft_fib_inet, nf_conntrack",
		try:    func(*rtnl.Conn) error { return translate() },
	},
	{
		object: "nftables for bridges",
		level:  Note,
		do:     "without CONFIG_NF_TABLES_BRIDGE pods can send frames to neighbours past network policies",
		try:    func(*rtnl.Conn) error { return filterFrames() },
	},
}

func (p probe) make(kernel *rtnl.Conn) Finding {
	err := p.try(kernel)
	if err == nil {
		return Finding{Level: OK, Object: p.object, What: "can be made"}
	}
	return Finding{
		Level:  p.level,
		Object: p.object,
		What:   err.Error(),
		Do:     p.do,
	}
}

// limit limits what the pod of a veth receives and sends.
func limit(c *rtnl.Conn) error {
	veth, err := c.LinkByName("probe1")
	if err != nil {
		return err
	}

	const megabit = 1_000_000
	limit := shaping.Limit{Rate: megabit, Burst: megabit}
	_, err = shaping.Pod{
		Network: "probe",
		Owner:   ipam.Owner{ContainerID: "probe", IfName: "eth0"},
		Ingress: limit,
		Egress:  limit,
	}.Ensure(c, veth, new(undo.Stack))
	return err
}

// translate writes the rules of a network.
func translate() error {
	table, err := hostnat.Open(hostnat.Config{
		Network:    "probe",
		Bridge:     "probe0",
		Masquerade: true,
		SNAT:       true,
		Ports:      true,
	})
	if err != nil {
		return err
	}
	return errors.Join(table.Ensure(), table.Close())
}

func filterFrames() error {
	c, err := nft.Begin()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "probe", Family: nftables.TableFamilyBridge})
	c.AddChain(&nftables.Chain{
		Table:    table,
		Name:     "prerouting",
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityFilter,
	})
	return c.Flush()
}

// Kernel says what the kernel can do, by having it done in a network namespace of its own, which may load
// modules, and of which nothing can be left.
func Kernel() (found []Finding, err error) {
	err = namespace.InOwnNet(func() error {
		kernel, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = kernel.Close() }()

		for _, p := range probes {
			found = append(found, p.make(kernel))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("try what the kernel can do: %w", err)
	}
	return found, nil
}

// Settings says which settings of the host keep packets of pods from their way. podCIDRs are those of the
// node.
func Settings(podCIDRs []netip.Prefix) (found []Finding) {
	for _, p := range podCIDRs {
		name := "net/ipv6/conf/all/forwarding"
		if p.Addr().Is4() {
			name = "net/ipv4/ip_forward"
		}
		if value := sysctl.Get(name); value != "1" {
			found = append(found, Finding{
				Level:  Wrong,
				Object: "sysctl " + name,
				What:   fmt.Sprintf("it is %q, so packets of pods %s are not forwarded", value, p),
				Do:     "set it to 1",
			})
		}
	}

	if sysctl.Get("net/bridge/bridge-nf-call-iptables") == "1" {
		found = append(found, Finding{
			Level:  Note,
			Object: "sysctl net/bridge/bridge-nf-call-iptables",
			What:   "rules of the host see frames between pods of a bridge, too (module br_netfilter)",
		})
	}
	return append(found, connections()...)
}

// fullShare is the share of tracked connections at which the kernel is about to drop new ones.
const fullShare = 0.9

func connections() []Finding {
	count, err := strconv.ParseFloat(sysctl.Get("net/netfilter/nf_conntrack_count"), 64)
	most, maxErr := strconv.ParseFloat(sysctl.Get("net/netfilter/nf_conntrack_max"), 64)
	if err != nil || maxErr != nil || most == 0 || count < fullShare*most {
		return nil
	}
	return []Finding{{
		Level:  Wrong,
		Object: "tracked connections",
		What:   fmt.Sprintf("%.0f of at most %.0f: new ones are dropped when there is no room", count, most),
		Varies: true,
		Do:     "raise sysctl net/netfilter/nf_conntrack_max",
	}}
}
