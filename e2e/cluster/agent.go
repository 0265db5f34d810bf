package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Exchange puts another agent, trivet or kubelet, in the seat of a node that runs, as an administrator would:
// the old one is stopped, the new one started, and nothing else touched. It waits until the Node says that
// the new one is there.
func (c *Cluster) Exchange(ctx context.Context, node, agent string) error {
	plan, err := c.Plan()
	if err != nil {
		return fmt.Errorf("no cluster is up: %w", err)
	}

	i := slices.IndexFunc(plan.Nodes, func(n Node) bool { return n.Name == node })
	if i < 0 {
		return fmt.Errorf("the cluster has no node %q", node)
	}

	old := plan.Nodes[i]
	plan.Nodes[i].Agent = agent
	if err := plan.Nodes[i].Validate(); err != nil {
		return err
	}

	m := c.Machine(node)
	if err := m.Stop(c.agent(i, old).Name, 10*time.Second); err != nil {
		return err
	}

	// from here on, the new one is the node's
	if err := c.writePlan(plan); err != nil {
		return err
	}

	next := c.agent(i, plan.Nodes[i])
	if err := m.Start(next); err != nil {
		return err
	}

	client, err := c.client()
	if err != nil {
		return err
	}

	return poll(ctx, 100*time.Millisecond, 2*time.Minute, func(ctx context.Context) (bool, error) {
		have, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return false, c.died(m, next.Name)
		}

		ours := strings.Contains(have.Status.NodeInfo.KubeletVersion, "trivet")
		return ready(have) && ours == (agent == "trivet"), c.died(m, next.Name)
	})
}
