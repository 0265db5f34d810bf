package check

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
)

//go:embed snapshot.yaml
var snapshot string

//go:embed restored.yaml
var restored string

// snapshots takes a snapshot of a volume on each node, and reads from a volume made of it what the first one
// had at that moment.
func (c Checks) snapshots(ctx context.Context) error {
	_, err := c.kubectl(ctx, "", "wait", "--for=condition=Ready", limit, "pod", "-l", "check=snapshots")
	if err != nil {
		return err
	}

	var taken strings.Builder
	for _, node := range c.Nodes {
		taken.WriteString("---\n" + strings.ReplaceAll(snapshot, "NODE", node))
	}
	if _, err := c.kubectl(ctx, taken.String(), "apply", "-f", "-"); err != nil {
		return err
	}
	_, err = c.kubectl(ctx, "", "wait", "--for=jsonpath={.status.readyToUse}=true", limit,
		"volumesnapshots", "--all")
	if err != nil {
		return err
	}

	for _, node := range c.Nodes {
		write := []string{"exec", "snapshots-" + node, "--", "sh", "-c", "echo after >/data/file"}
		if _, err := c.kubectl(ctx, "", write...); err != nil {
			return err
		}
	}
	return c.restore(ctx)
}

// restore reads what volumes have that are made of the snapshots.
func (c Checks) restore(ctx context.Context) error {
	var pods strings.Builder
	for _, node := range c.Nodes {
		pods.WriteString("---\n" + strings.ReplaceAll(restored, "NODE", node))
	}
	if _, err := c.kubectl(ctx, pods.String(), "apply", "-f", "-"); err != nil {
		return err
	}
	_, err := c.kubectl(ctx, "", "wait", "--for=condition=Ready", limit, "pod", "-l", "check=restored")
	if err != nil {
		return err
	}

	for _, node := range c.Nodes {
		out, err := c.kubectl(ctx, "", "exec", "restored-"+node, "--", "cat", "/data/file")
		if err == nil && strings.TrimSpace(out) != "before" {
			err = fmt.Errorf("it has %q", out)
		}
		if err != nil {
			return fmt.Errorf("volume on %s that was made of a snapshot: %w", node, err)
		}
	}
	return nil
}
