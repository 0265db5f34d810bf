package part

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Restarted returns when all pods of a node are Ready with containers that started since.
func Restarted(ctx context.Context, c Cluster, node string, since time.Time) error {
	return settle(ctx, "pods of node "+node, func(ctx context.Context) error {
		return IsRestarted(ctx, c, since, "--field-selector=spec.nodeName="+node)
	})
}

// IsRestarted returns an error until all pods are Ready with containers that started since. args choose the
// pods.
func IsRestarted(ctx context.Context, c Cluster, since time.Time, args ...string) error {
	out, err := c.Kubectl(ctx, "", append([]string{"get", "pods", "-A", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status} ` +
			`{.status.containerStatuses[0].state.running.startedAt}{"\n"}{end}`}, args...)...)
	if err != nil {
		return err
	}

	for line := range strings.Lines(out) {
		if err := isRestarted(strings.Fields(line), since); err != nil {
			return err
		}
	}
	return nil
}

// isRestarted looks at the name of a pod, whether it is Ready, and since when its container runs.
func isRestarted(fields []string, since time.Time) error {
	if len(fields) == 0 {
		return nil
	}
	if len(fields) < 3 || fields[1] != "True" {
		return fmt.Errorf("not Ready: %s", strings.Join(fields, " "))
	}

	started, err := time.Parse(time.RFC3339, fields[2])
	if err == nil && started.Before(since.Truncate(time.Second)) {
		err = fmt.Errorf("still shown as before: %s", strings.Join(fields, " "))
	}
	return err
}
