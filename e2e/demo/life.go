package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

func scaleUp(ctx context.Context, s *stage) error {
	if _, err := s.run(ctx, "scale", "statefulset/kv", "--replicas=3"); err != nil {
		return err
	}
	if err := awaitReady(ctx, s); err != nil {
		return err
	}
	_, err := s.show(ctx, "get", "pods", "-l", "app=kv", "-o", "wide")
	return err
}

// checkSpread checks that the replicas are on different nodes, and each volume on the node of its pod.
func checkSpread(ctx context.Context, s *stage) error {
	nodes, err := s.table(ctx, ".spec.nodeName", "pods", "-l", "app=kv")
	if err != nil {
		return err
	}
	if err := spread(slices.Collect(maps.Values(nodes)), s.nodes); err != nil || !s.claims {
		return err
	}

	volumes, err := s.table(ctx, ".spec.volumeName", "persistentvolumeclaims")
	if err != nil {
		return err
	}
	affinities, err := s.table(ctx, ".spec.nodeAffinity", "persistentvolumes")
	if err != nil {
		return err
	}

	for pod, node := range nodes {
		volume := volumes["data-"+pod]
		if err := contains(affinities[volume], `"`+node+`"`); err != nil {
			return fmt.Errorf("volume %s of %s: %w", volume, pod, err)
		}
	}
	return nil
}

// spread checks that three replicas are on as many nodes as they can be in a cluster of this size. used has
// the node of each replica.
func spread(used []string, size int) error {
	different := map[string]bool{}
	for _, node := range used {
		different[node] = true
	}
	if want := min(3, max(1, size)); len(different) != want {
		return fmt.Errorf("3 replicas are on %d nodes, want %d: %v", len(different), want, used)
	}
	return nil
}

func reachReplicas(ctx context.Context, s *stage) error {
	for i := range 3 {
		host := fmt.Sprintf("kv-%d.kv-nodes.demo.svc.cluster.local:8080/info", i)

		// DNS caches for some seconds that a name was not there.
		err := until(ctx, 30*time.Second, func(ctx context.Context) error {
			out, err := read(ctx, s, "kv-0", host)
			return errors.Join(err, contains(out, fmt.Sprintf(`"host":"kv-%d"`, i)))
		})
		if err != nil {
			return err
		}
	}

	return nil
}

func scaleDown(ctx context.Context, s *stage) error {
	if _, err := s.run(ctx, "scale", "statefulset/kv", "--replicas=1"); err != nil {
		return err
	}
	_, err := s.run(ctx, "wait", "--for=delete", "pod/kv-1", "pod/kv-2", "--timeout=120s")
	return err
}

// top shows what nodes and pods use, as soon as metrics-server has asked the nodes.
func top(ctx context.Context, s *stage) error {
	const service = "apiservice/v1beta1.metrics.k8s.io"
	if out, err := s.run(ctx, "get", service, "--ignore-not-found"); err != nil || out == "" {
		return err
	}

	err := until(ctx, 60*time.Second, func(ctx context.Context) error {
		out, err := s.run(ctx, "top", "pods")
		return errors.Join(err, contains(out, "kv-0"))
	})
	if err != nil {
		return err
	}

	if _, err := s.show(ctx, "top", "nodes"); err != nil {
		return err
	}
	_, err = s.show(ctx, "top", "pods", "--containers")
	return err
}

// update sets the new image in the containers that a rolling update replaces.
func update(ctx context.Context, s *stage) error {
	const image = "docker.io/trivet/demo:2"
	if _, err := s.run(ctx, "set", "image", "statefulset/kv", "kv="+image, "watch="+image); err != nil {
		return err
	}
	if err := awaitReady(ctx, s); err != nil {
		return err
	}

	out, err := read(ctx, s, "kv-0", "127.0.0.1:8080/version")
	if err != nil {
		return err
	}
	if version := strings.TrimSpace(out); version != "2" {
		return fmt.Errorf("version %q after the update, want 2", version)
	}

	return nil
}

func deletePod(ctx context.Context, s *stage) error {
	want := fmt.Sprintf("kept-%d", time.Now().UnixNano())
	if err := put(ctx, s, "kept", want); err != nil {
		return err
	}

	uid, err := s.field(ctx, "pod/kv-0", ".metadata.uid")
	if err != nil {
		return err
	}
	if _, err := s.run(ctx, "delete", "pod", "kv-0", "--timeout=60s"); err != nil {
		return err
	}

	// The StatefulSet makes another pod of this name.
	err = until(ctx, 60*time.Second, func(ctx context.Context) error {
		now, err := s.field(ctx, "pod/kv-0", ".metadata.uid")
		if err == nil && now == uid {
			err = errors.New("the old pod is still there")
		}

		return err
	})
	if err != nil {
		return err
	}
	if err := awaitReady(ctx, s); err != nil {
		return err
	}

	out, err := read(ctx, s, "kv-0", "127.0.0.1:8080/kv/kept")
	if err != nil {
		return err
	}
	if out != want {
		return fmt.Errorf("the value reads %q after the pod was replaced, want %q", out, want)
	}

	return nil
}

// deleteClaims removes the workload and its claims, and waits until the volumes are gone, too.
func deleteClaims(ctx context.Context, s *stage) error {
	names, err := s.column(ctx, ".spec.volumeName", "persistentvolumeclaims")
	if err != nil {
		return err
	}

	for _, kinds := range []string{"statefulsets,jobs", "persistentvolumeclaims"} {
		if _, err := s.run(ctx, "delete", kinds, "--all", "--timeout=60s"); err != nil {
			return err
		}
	}

	wait := []string{"wait", "--for=delete", "--timeout=60s"}
	for _, name := range names {
		wait = append(wait, "persistentvolume/"+name)
	}

	_, err = s.run(ctx, wait...)
	return err
}

func deleteRest(ctx context.Context, s *stage) error {
	if s.noWait && !s.claims {
		// With claims, the pods have gone with them.
		_, err := s.run(ctx, "delete", "statefulsets,jobs,pods", "--all", "--timeout=60s")
		if err != nil {
			return err
		}
	}

	_, err := s.run(ctx, "delete", "-f", s.manifest("app.yaml"), "-f", s.manifest("job.yaml"),
		"--ignore-not-found", "--timeout=120s", fmt.Sprintf("--wait=%t", !s.noWait))
	return err
}
