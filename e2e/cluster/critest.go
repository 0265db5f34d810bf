package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/trivet-node/trivet/e2e/lan"
	"github.com/trivet-node/trivet/e2e/leaks"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/e2e/specs"
)

// critestName is the machine on which critest meets a CRI server alone, without an agent that would take its
// pods away.
const critestName = "critest"

var critestIP = netip.MustParseAddr("10.99.2.1")

// critestNetwork is what critest's pods hang on; nobody but their machine has to reach them.
const critestNetwork = `{"cniVersion": "1.1.0", "name": "critest", "plugins": [{
  "type": "trivet-cni", "bridge": "trivet0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.245.0.0/24"}]]},
  "capabilities": {"portMappings": true, "ipRanges": true, "ips": true, "mac": true}
}]}
`

// critestSeats are those of its machine.
func critestSeats(oci string) Seats {
	return Seats{
		Agent: "trivet",
		CRI:   "trivet",
		CNI:   "trivet",
		OCI:   oci,
		Init:  "trivet",
	}
}

// Critest runs the published critest against trivet-cri over an OCI runtime, on a machine of its own beside
// the cluster, and returns one result a spec. What the specs leave behind is an error.
func (c *Cluster) Critest(ctx context.Context, oci string, procs int) (results []specs.Result, err error) {
	seats := critestSeats(oci)
	if err := seats.Validate(); err != nil {
		return nil, err
	}

	report := c.path("critest", oci)
	if err := os.MkdirAll(report, 0o755); err != nil {
		return nil, err
	}

	m := c.Machine(critestName)
	defer func() { err = errors.Join(err, m.Halt(context.WithoutCancel(ctx))) }()

	if err := c.bootForCritest(ctx, Node{Name: critestName, Seats: seats}, report); err != nil {
		return nil, fmt.Errorf("machine %s: %w", critestName, err)
	}

	results, err = specs.RunCritest(ctx, specs.Critest{
		Suite:     c.reference("critest.test"),
		Ginkgo:    c.reference("critest-ginkgo"),
		Procs:     procs,
		Endpoint:  criEndpoint(Node{Seats: seats}),
		ReportDir: report,
		Command:   m.Command,
	}, c.Out)
	if err != nil {
		return nil, err
	}

	view := leaks.View{Pid: m.Pid(), Group: c.group(critestName), Daemons: nodeDaemons}
	return results, leaks.Await(ctx, 30*time.Second, func() ([]leaks.Leak, error) { return leaks.Node(view) })
}

// bootForCritest boots a machine with a CRI server and a network, and nothing that knows of a cluster.
func (c *Cluster) bootForCritest(ctx context.Context, n Node, report string) error {
	// of a run that was killed
	if err := c.Machine(n.Name).Halt(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(c.path("machines", n.Name)); err != nil {
		return err
	}

	if err := c.writeRuntimeFiles(n); err != nil {
		return err
	}
	if err := c.writeKept(n, "/etc/cni/net.d/10-critest.conflist", critestNetwork); err != nil {
		return err
	}

	config := machine.Config{
		Name:   n.Name,
		Group:  c.group(n.Name),
		Hosts:  hosts(n.Name, critestIP.String()),
		Keep:   keep,
		Expose: samePath(c.Bin, c.Programs, report),
	}

	m := c.Machine(n.Name)
	if err := m.Boot(ctx, config); err != nil {
		return err
	}

	address := netip.PrefixFrom(critestIP, lanBits)
	if err := lan.Plug(c.controlPlane().Pid(), m.Pid(), n.Name, address, gateway); err != nil {
		return err
	}
	if err := m.Start(c.criServer(n)); err != nil {
		return err
	}

	return c.awaitSocket(ctx, m, n)
}
