package netd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/netd/cluster"
	"github.com/trivet-node/trivet/cni/netd/doctor"
	"github.com/trivet-node/trivet/cni/netd/enforcer"
	"github.com/trivet-node/trivet/cni/netd/overlay"
	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/netd/routing"
	"github.com/trivet-node/trivet/cni/policy/filter"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// restarted is what to do about what a daemon that runs would repair by itself.
const restarted = "trivet-netd repairs it: is it running, and what does its /readyz say?"

// examination is one look at a node.
type examination struct {
	cfg    Config
	kernel *rtnl.Conn
	found  []doctor.Finding
}

// Examine says what is wrong with the network of this node, and changes nothing. It waits for the API server
// as long as ctx allows; without it, it says what can be told on the node alone.
func Examine(ctx context.Context, api kube.Config, cfg Config) ([]doctor.Finding, error) {
	kernel, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = kernel.Close() }()

	x := examination{cfg: cfg, kernel: kernel}
	if x.found, err = doctor.Kernel(); err != nil {
		return nil, err
	}
	if err := x.node(); err != nil {
		return nil, err
	}
	return x.found, x.compare(ctx, api)
}

func (x *examination) add(level doctor.Level, object, what, do string) {
	x.found = append(x.found, doctor.Finding{
		Level:  level,
		Object: object,
		What:   what,
		Do:     do,
	})
}

// wrong adds what err says, unless it is nil.
func (x *examination) wrong(object string, err error, do string) {
	if err != nil {
		x.add(doctor.Wrong, object, err.Error(), do)
	}
}

// node looks at what the configuration that runtimes use has led to.
func (x *examination) node() error {
	if name := sortsBefore(x.cfg); name != "" {
		x.add(doctor.Note, filepath.Join(x.cfg.ConfDir, name), "runtimes use that network", "remove it")
	}

	data, err := os.ReadFile(x.cfg.confPath())
	if errors.Is(err, fs.ErrNotExist) {
		x.add(doctor.Wrong, x.cfg.confPath(), "there is no network configuration", restarted)
		return nil
	}
	if err != nil {
		return err
	}
	n, err := parseConfig(data)
	if err != nil {
		x.wrong(x.cfg.confPath(), err, restarted)
		return nil
	}

	if err := x.network(n); err != nil {
		return err
	}
	pool, err := doctor.Pool(n.IPAM.Pool, n.IPAM.Sets)
	x.found = append(x.found, pool...)
	if err != nil {
		return err
	}
	leaks, err := doctor.Leaks(x.kernel, n)
	x.found = append(x.found, leaks...)
	return err
}

// network looks at the bridge, and at the rules that come with it.
func (x *examination) network(n *conf.Network) error {
	var sets [][]bridge.Address
	for _, set := range n.IPAM.Sets {
		address := bridge.Address{Prefix: set[0].Subnet, Gateway: set[0].Gateway}
		sets = append(sets, []bridge.Address{address})
	}
	x.wrong("bridge "+n.Bridge.Name, bridge.Usable(x.kernel, n.Bridge, sets),
		"trivet-netd moves it when the last pod with an address of the other subnet has gone")
	x.found = append(x.found, doctor.Settings(n.IPAM.Subnets)...)

	// Without a bridge there are no pods that need rules.
	if _, err := x.kernel.LinkByName(n.Bridge.Name); err != nil {
		return nil
	}
	table, err := hostnat.Open(n.NAT)
	if err != nil {
		return err
	}
	defer func() { _ = table.Close() }()
	x.wrong("nftables", table.Check(), restarted)

	unguarded, err := doctor.Unguarded(x.kernel, n)
	x.found = append(x.found, unguarded...)
	return err
}

// compare looks for what differs between the cluster and this node.
func (x *examination) compare(ctx context.Context, api kube.Config) error {
	changed := make(chan struct{}, 1)
	c, err := cluster.New(api, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}

	watching, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(watching)
	}()
	defer func() {
		stop()
		<-ended
	}()

	// The networks of Services come behind the Nodes, and are looked for once.
	for waiting := c.Waiting(); waiting != nil; waiting = c.Waiting() {
		select {
		case <-ctx.Done():
			x.found = append(x.found, doctor.Finding{
				Level:  doctor.Wrong,
				Object: "API server",
				What:   waiting.Error(),
				Varies: true,
				Do:     "routes and tunnels are not compared without it",
			})
			return nil
		case <-changed:
		}
	}
	_ = retry.Sleep(ctx, settling)

	all, notes := c.Nodes()
	for _, note := range notes {
		x.add(doctor.Note, "Nodes", note, "")
	}
	own, ok := find(all, x.cfg.NodeName)
	if !ok {
		x.add(doctor.Wrong, "node "+x.cfg.NodeName, "it is not in the cluster", "is --node-name right?")
		return nil
	}
	if err := x.ways(own, all, slices.Concat(x.cfg.ServiceCIDRs, c.Services())); err != nil {
		return err
	}
	x.policies(ctx, c.Client(), own)
	return nil
}

// policies looks at the rules of network policies, of which there are none where another program has them.
func (x *examination) policies(ctx context.Context, client *kube.Client, own podcidr.Node) {
	differences, err := x.differences(ctx, client, own)
	for _, d := range differences {
		x.found = append(x.found, doctor.Finding{
			Level:  doctor.Wrong,
			Object: "network policies",
			What:   d.What,
			Seen:   d.Have,
			Do:     restarted,
		})
	}
	x.wrong("network policies", err, "the rules of policies are not compared without it")
}

func (x *examination) differences(
	ctx context.Context, client *kube.Client, own podcidr.Node,
) ([]filter.Difference, error) {
	if !x.cfg.Policies {
		return enforcer.Leftovers(x.cfg.Network)
	}

	cfg, err := x.cfg.enforcer()
	if err != nil {
		return nil, err
	}
	return enforcer.Compare(ctx, client, cfg, own.PodCIDRs)
}

// settling is how long the networks of Services may take.
const settling = 500 * time.Millisecond

// ways looks at routes, tunnels and the configuration.
func (x *examination) ways(own podcidr.Node, all []podcidr.Node, services []netip.Prefix) error {
	rules := podcidr.Rules{Cluster: x.cfg.ClusterCIDRs, Services: services}
	admitted, refused := rules.Admit(own, all)
	for _, r := range refused {
		x.add(doctor.Note, "node "+r.Node.Name, r.String(), "")
	}
	if len(own.PodCIDRs) == 0 {
		x.add(doctor.Wrong, "node "+own.Name, "it has no pod CIDR",
			"the controller-manager allocates it: --allocate-node-cidrs, --cluster-cidr")
	}

	local, err := addresses(x.kernel)
	if err != nil {
		return err
	}
	plan, _, err := x.cfg.plan(x.kernel, own, admitted, local)
	if err != nil {
		return err
	}
	for _, note := range plan.Notes {
		x.add(doctor.Note, "routes", note, "")
	}

	tunnels, err := x.cfg.overlay().Findings(x.kernel, plan.Tunnels, plan.Allowed)
	if err != nil {
		return err
	}
	through, err := overlay.Routes(x.kernel, plan.Tunnels)
	if err != nil {
		return err
	}
	routes, err := routing.Findings(x.kernel, slices.Concat(plan.Routes, routing.ThroughTunnels(through)))
	for _, what := range slices.Concat(tunnels, routes) {
		x.add(doctor.Wrong, "ways to other nodes", what, restarted)
	}
	x.pods(own)
	return err
}

// pods compares the addresses that the configuration gives to pods with those of the Node.
func (x *examination) pods(own podcidr.Node) {
	data, err := os.ReadFile(x.cfg.confPath())
	if err != nil || len(own.PodCIDRs) == 0 {
		return
	}
	n, err := parseConfig(data)
	if err == nil && !slices.Equal(n.IPAM.Subnets, own.PodCIDRs) {
		x.add(doctor.Wrong, x.cfg.confPath(),
			fmt.Sprintf("it has pods of %s, and the Node %s", texts(n.IPAM.Subnets), texts(own.PodCIDRs)),
			restarted)
	}
}
