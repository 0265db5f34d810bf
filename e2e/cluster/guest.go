package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/leaks"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/e2e/specs/critest"
	"github.com/trivet-node/trivet/e2e/specs/suite"
)

// critestName is the machine on which critest meets a CRI server alone, without an agent that would take its
// pods away.
const critestName = "critest"

// critestNetwork is what critest's pods are connected to; only their machine has to reach them.
const critestNetwork = `{"cniVersion": "1.1.0", "name": "critest", "plugins": [{
  "type": "trivet-cni", "bridge": "trivet0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.245.0.0/24"}]]},
  "capabilities": {"portMappings": true, "ipRanges": true, "ips": true, "mac": true}
}]}
`

// critestNode is its machine as a node.
func critestNode(oci string) Node {
	seats := seat.Ours
	seats.OCI = oci
	return Node{Name: critestName, Seats: seats}
}

// Critest runs the published critest against trivet-cri over an OCI runtime, on a machine of its own beside
// the cluster, and returns one result a spec. What the specs leave behind is an error.
func (c *Cluster) Critest(ctx context.Context, oci string, procs int) (results []suite.Result, err error) {
	n := critestNode(oci)
	if err := n.Validate(); err != nil {
		return nil, err
	}

	report := c.state().path("critest", oci)
	if err := os.MkdirAll(report, 0o755); err != nil {
		return nil, err
	}

	m := c.Machine(n.Name)
	defer func() { err = errors.Join(err, m.Halt(context.WithoutCancel(ctx))) }()

	if err := bootForCritest(ctx, c.state(), c.programs(), n, report); err != nil {
		return nil, fmt.Errorf("machine %s: %w", n.Name, err)
	}

	run := critest.Run{
		Suite:     c.programs().Peer("critest.test"),
		Ginkgo:    c.programs().Peer("critest-ginkgo"),
		Procs:     procs,
		Endpoint:  n.CRIEndpoint(),
		ReportDir: report,
		Command:   m.Command,
	}

	results, err = run.Do(ctx, suite.Print(c.Out, 0))
	if err != nil {
		return nil, err
	}

	view := leaks.View{Pid: m.Pid(), Group: c.state().group(n.Name), Daemons: nodeDaemons}
	return results, leaks.Await(ctx, 30*time.Second, func() ([]leaks.Leak, error) { return leaks.Node(view) })
}

// bootForCritest boots a machine with a CRI server and a network, and nothing that knows of a cluster.
func bootForCritest(
	ctx context.Context, state stateDir, programs seat.Programs, n Node, report string,
) error {
	m := state.machine(n.Name)

	// A run that was killed may have left one.
	if err := m.Halt(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		return err
	}

	files := state.nodeFiles(n.Name)
	if err := writeRuntimeFiles(files, programs, n.Seats); err != nil {
		return err
	}

	network := map[string]string{"/etc/cni/net.d/10-critest.conflist": critestNetwork}
	if err := files.write(network); err != nil {
		return err
	}

	config := machine.Config{
		Name:   n.Name,
		Group:  state.group(n.Name),
		Hosts:  hosts(n.Name, address.Critest),
		Keep:   kept,
		Expose: samePath(programs.Reference, programs.Ours, report),
	}
	if err := m.Boot(ctx, config); err != nil {
		return err
	}
	if err := plug(state.controlPlane(), m, address.Stack{}, address.Critest); err != nil {
		return err
	}

	server := programs.CRIServer(n.Seats)
	if err := m.Start(server); err != nil {
		return err
	}

	return awaitCRI(ctx, m, n.CRISocket(), server.Name)
}

// guestName is a machine that is not of the plan: it may join the cluster by kubeadm.
const guestName = "guest"

// guestNode is the guest as a node.
func guestNode() Node {
	seats := seat.Ours
	seats.Init = machine.Systemd
	return Node{Name: guestName, Seats: seats}
}

// Guest is a machine beside the nodes of a cluster that is up.
type Guest struct{ *Cluster }

// Boot boots it with systemd, kubeadm, a CRI server and the network daemon's credentials, and kubelet as a
// service with the drop-in of deploy/node. Nothing of it has joined the cluster.
func (g Guest) Boot(ctx context.Context) error {
	n, c := guestNode(), g.Cluster
	if err := g.Dismiss(ctx); err != nil {
		return err
	}

	files := c.state().nodeFiles(n.Name)
	if err := writeRuntimeFiles(files, c.programs(), n.Seats); err != nil {
		return err
	}
	netd := map[string]string{"trivet-netd.kubeconfig": "trivet-netd.conf"}
	if err := files.copySecrets(c.state().pki(), "/etc/trivet", netd); err != nil {
		return err
	}

	m := c.Machine(n.Name)
	config := machine.Config{
		Name:   n.Name,
		Init:   n.MachineInit(),
		Group:  c.state().group(n.Name),
		Hosts:  hosts(n.Name, address.Guest),
		Keep:   kept,
		Cover:  []string{programsOfMachine},
		Expose: samePath(c.Bin, c.Programs),
	}
	for _, program := range []string{c.programs().Peer("kubeadm"), c.programs().Peer("kubelet")} {
		config.Expose[program] = filepath.Join(programsOfMachine, filepath.Base(program))
	}

	if err := m.Boot(ctx, config); err != nil {
		return err
	}
	if err := plug(c.state().controlPlane(), m, address.Stack{}, address.Guest); err != nil {
		return err
	}

	if err := g.installAgent(ctx, m); err != nil {
		return err
	}
	if err := g.writeUnits(m); err != nil {
		return err
	}

	server := c.programs().CRIServer(n.Seats)
	if err := m.Start(server); err != nil {
		return err
	}
	return awaitCRI(ctx, m, n.CRISocket(), server.Name)
}

// installAgent copies the agent to the machine, which may replace it by another one.
func (g Guest) installAgent(ctx context.Context, m *machine.Machine) error {
	program := g.programs().Own("trivet-node")
	cmd, err := m.Command(ctx, "install", "--mode=755", program, programsOfMachine)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s to machine %s: %w: %s", program, m.Name, err, out)
	}
	return nil
}

// kubeletUnit is the service of Kubernetes' packages, with kubeadm's drop-in; the machine has no targets.
var kubeletUnit = map[string]string{
	"kubelet.service": `[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/local/bin/kubelet
Restart=always
RestartSec=10
`,
	"kubelet.service.d/10-kubeadm.conf": `[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf ` +
		`--kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS ` +
		`$KUBELET_EXTRA_ARGS
`,
}

// dropIn puts trivet-node into kubelet's service.
const dropIn = "kubelet.service.d/20-trivet-node.conf"

func (g Guest) writeUnits(m *machine.Machine) error {
	text, err := os.ReadFile(filepath.Join(g.Deploy, "node", dropIn))
	if err != nil {
		return err
	}
	if err := m.WriteUnits(map[string]string{dropIn: string(text)}); err != nil {
		return err
	}
	return m.WriteUnits(kubeletUnit)
}

// StartNetwork starts its network daemon, which serves a node that has joined.
func (g Guest) StartNetwork() error {
	netd := g.programs().Netd(guestName, seat.Ours.Network())
	for i, arg := range netd.Argv {
		if arg == "--kubeconfig=/etc/kubernetes/trivet-netd.conf" {
			netd.Argv[i] = "--kubeconfig=/etc/trivet/trivet-netd.conf"
		}
	}
	return g.Machine(guestName).Start(netd)
}

// Dismiss ends the machine and removes what it has kept.
func (g Guest) Dismiss(ctx context.Context) error {
	m := g.Machine(guestName)
	if err := m.Halt(ctx); err != nil {
		return err
	}
	return os.RemoveAll(m.Dir)
}
