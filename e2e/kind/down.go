package kind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/trivet-node/trivet/e2e/leaks"
	"github.com/trivet-node/trivet/internal/durable"
)

// removable is what goes with the cluster. Docker's programs, the root file system of the nodes, and what was
// downloaded stay.
var removable = []string{
	"kubeconfig", "kubectl-cache", "kind.yaml", "certs.d", sharedDir, "smoke", "node", "trivet", demoLog,
}

// leakLimit is how long the kernel may take to take apart what processes leave.
const leakLimit = 30 * time.Second

// Down takes the cluster down, and its Docker with it unless it is the user's. It is safe to repeat.
// Without a record nothing is removed: what lies in the directory may be anyone's.
func (c *Cluster) Down(ctx context.Context) error {
	_, err := ReadRecord(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		c.Say("no kind cluster is up")
		return nil
	}
	if err != nil {
		return err
	}

	// With a Docker of its own, the cluster ends with that.
	if c.Docker.Running() && c.Image != "" {
		if err := errors.Join(c.delete(ctx), registry{c}.remove(ctx)); err != nil {
			return err
		}
	}
	if err := c.Docker.Down(ctx); err != nil {
		return err
	}

	for _, name := range removable {
		if err := os.RemoveAll(c.path(name)); err != nil {
			return err
		}
	}

	left := leaks.Await(ctx, leakLimit, c.leaks)
	if err := ctx.Err(); err != nil {
		return errors.Join(err, left)
	}

	// The record goes last: a call that was cut off is repeated by it. What is left is reported once, and
	// does not keep the next cluster from being made.
	for _, file := range []string{c.hostFile(), c.path(recordFile)} {
		if err := os.RemoveAll(file); err != nil {
			return errors.Join(err, left)
		}
	}
	if left != nil {
		return left
	}

	c.Say("the cluster is down, and nothing is left of it")
	return nil
}

func (c *Cluster) hostFile() string { return c.path("host.json") }

// rememberHost writes down how the host looks before there is a cluster.
func (c *Cluster) rememberHost() error {
	if c.Docker.Running() {
		return nil
	}

	now, err := leaks.TakeSnapshot()
	if err != nil {
		return err
	}

	data, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return durable.WriteVolatile(c.hostFile(), data, 0o644)
}

// leaks lists what is left on the host of a cluster that is down.
func (c *Cluster) leaks() ([]leaks.Leak, error) {
	left, err := c.Docker.Leaks()
	if err != nil {
		return nil, err
	}

	data, err := os.ReadFile(c.hostFile())
	if errors.Is(err, fs.ErrNotExist) {
		return left, nil
	}
	if err != nil {
		return nil, err
	}

	var before leaks.Snapshot
	if err := json.Unmarshal(data, &before); err != nil {
		return nil, fmt.Errorf("%s: %w", c.hostFile(), err)
	}

	now, err := leaks.TakeSnapshot()
	return append(left, now.Since(before)...), err
}
