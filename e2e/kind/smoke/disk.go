package smoke

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// disk is that of the host, which all nodes share.
type disk Smoke

// extraMounts has the host and a pod on every node write into one directory and read what others wrote.
func (s disk) extraMounts(ctx context.Context) (string, error) {
	if err := os.WriteFile(filepath.Join(s.Shared, "host"), []byte("from the host"), 0o644); err != nil {
		return "", err
	}
	if err := namespace(s).applyEach(ctx, "mount.yaml"); err != nil {
		return "", err
	}
	if err := namespace(s).ready(ctx, "smoke=mount"); err != nil {
		return "", err
	}

	for _, node := range s.Nodes {
		script := "echo from " + node + " >/data/" + node
		if _, err := namespace(s).kubectl(ctx, "exec", "mount-"+node, "--", "sh", "-ec", script); err != nil {
			return "", err
		}
	}

	for _, node := range s.Nodes {
		seen, err := namespace(s).kubectl(ctx, "exec", "mount-"+node, "--", "sh", "-ec", "cat /data/*")
		if err != nil {
			return "", err
		}

		for _, writer := range append([]string{"the host"}, s.Nodes...) {
			if !strings.Contains(seen, "from "+writer) {
				return "", fmt.Errorf("a pod on %s does not see what %s wrote, but: %s", node, writer, seen)
			}
		}

		if _, err := os.Stat(filepath.Join(s.Shared, node)); err != nil {
			return "", err
		}
	}
	return "", nil
}

// sharedDisk takes more than half of each node's part of the disk, and then wants as much again: nodes
// promise their part once, and what one of them has is not the other's.
func (s disk) sharedDisk(ctx context.Context) (string, error) {
	if err := images(s).onOneNode(ctx); err != nil {
		return "", err
	}

	if err := namespace(s).applyEach(ctx, "disk.yaml", "NAME", "first"); err != nil {
		return "", err
	}
	if err := namespace(s).ready(ctx, "disk=first"); err != nil {
		return "", err
	}

	if err := namespace(s).applyEach(ctx, "disk.yaml", "NAME", "second"); err != nil {
		return "", err
	}
	for _, node := range s.Nodes {
		look := func(ctx context.Context) error { return s.refused(ctx, "second-"+node) }
		if err := until(ctx, look); err != nil {
			return "", err
		}
	}

	_, err := namespace(s).kubectl(ctx, "delete", "pod,persistentvolumeclaim", patience, "-l", "disk")
	return "6Gi on each, no 6Gi more; images are each node's own", err
}

// refused returns an error until a pod waits for space.
func (s disk) refused(ctx context.Context, pod string) error {
	why, err := namespace(s).kubectl(ctx, "get", "pod", pod, "-o",
		`jsonpath={.status.phase} {.status.conditions[?(@.type=="PodScheduled")].message}`)
	if err != nil {
		return err
	}
	if !strings.Contains(why, "Pending") || !strings.Contains(why, "free storage") {
		return fmt.Errorf("pod %s wants what is not there, and is %s", pod, why)
	}
	return nil
}
