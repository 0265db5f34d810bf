package kind

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/trivet-node/trivet/e2e/kind/check"
	"github.com/trivet-node/trivet/e2e/kind/part"
	"github.com/trivet-node/trivet/e2e/kind/smoke"
	"github.com/trivet-node/trivet/e2e/kind/upgrade"
)

var errNotTrivet = errors.New("the nodes do not have trivet from the start (make kind KIND_NODES=trivet)")

// Swap exchanges trivet-node for kubelet on the control plane, under running pods, and back, with the checks
// after each. The nodes have trivet from the start, and what was to be installed is there.
func (o Course) Swap(ctx context.Context) error {
	if err := o.allInstalled(); err != nil {
		return err
	}

	agent := part.DropIn{Cluster: o.Cluster, Node: o.Cluster.name().controlPlane()}
	for _, turn := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"kubelet", agent.Remove},
		{"trivet-node", agent.Install},
	} {
		o.Cluster.Say("exchanging the agent of %s: %s", agent.Node, turn.name)
		if err := turn.do(ctx); err != nil {
			return fmt.Errorf("%s on %s: %w", turn.name, agent.Node, err)
		}

		o.Cluster.Say("%s works, no container was restarted", turn.name)
		if err := o.checks(volumes).Run(ctx); err != nil {
			return fmt.Errorf("with %s on %s: %w", turn.name, agent.Node, err)
		}
		o.Cluster.Say("ports of hosts, limits, growth and snapshots work")
	}
	return o.clean(ctx)
}

// allInstalled is an error unless the nodes have trivet from the start, and what was to be installed is
// there.
func (o Course) allInstalled() error {
	record, err := ReadRecord(o.Cluster.Dir)
	if err != nil {
		return err
	}
	if !o.Cluster.Trivet {
		return errNotTrivet
	}
	if record.Parts < o.All() {
		return fmt.Errorf("%d of %d parts of trivet are in the cluster: trivet-kind install puts them there",
			record.Parts, o.All())
	}
	return nil
}

// Upgrade has kubeadm bring the cluster to the version of Kubernetes of the reference programs, with the demo
// and the checks afterwards. The nodes have trivet from the start, and what was to be installed is there.
func (o Course) Upgrade(ctx context.Context) error {
	if err := o.allInstalled(); err != nil {
		return err
	}

	c := o.Cluster
	err := upgrade.Upgrade{
		Cluster:      c,
		Programs:     c.Bin,
		ControlPlane: c.name().controlPlane(),
		Worker:       c.name().worker(),
		Say:          c.Say,
	}.Run(ctx)
	if err != nil {
		return err
	}
	return errors.Join(o.show(ctx, volumes, false), o.clean(ctx))
}

// checks are those of what the demo does not show.
func (o Course) checks(how works) check.Checks {
	return check.Checks{
		Cluster:   o.Cluster,
		Nodes:     o.Cluster.name().nodes(),
		Claims:    how == volumes,
		Snapshots: how == volumes,
	}
}

// On which side of a reboot of the host Smoke is. Before it leaves what it has made, and after it looks only
// whether that works again.
const (
	BeforeReboot = "before"
	AfterReboot  = "after"
)

// Smoke tries what users of kind do with a cluster whose nodes have trivet in all seats. The table is
// appended to the file, or printed. reboot is BeforeReboot, AfterReboot, or "" where there is none.
func (o Course) Smoke(ctx context.Context, table, reboot string) error {
	c := o.Cluster
	if !c.Trivet {
		return errNotTrivet
	}

	dir := c.path("smoke")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}

	s := smoke.Smoke{
		Cluster: c,
		Name:    string(c.name()),
		Nodes:   c.name().nodes(),
		Family:  c.Family.OrDefault(),
		Dir:     dir,
		Shared:  c.path(sharedDir),
		Keep:    reboot == BeforeReboot,
		Out:     c.Out,
		Table:   c.Out,
	}
	if table != "" {
		file, err := os.OpenFile(table, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer file.Close()

		s.Table = file
	}
	if reboot == AfterReboot {
		return s.AfterReboot(ctx)
	}
	return s.Run(ctx)
}
