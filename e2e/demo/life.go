package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

func (d *Demo) scaleUp(ctx context.Context) error {
	if _, err := d.kubectl(ctx, "scale", "statefulset/kv", "--replicas=3"); err != nil {
		return err
	}
	if err := d.awaitReady(ctx); err != nil {
		return err
	}
	out, err := d.show(ctx, "get", "pods", "-l", "app=kv", "-o", "wide")
	if err != nil {
		return err
	}
	return d.spread(ctx, out)
}

// spread checks that the replicas are on different nodes, and each volume on the node of its pod.
func (d *Demo) spread(ctx context.Context, listing string) error {
	nodes, err := d.kubectl(
		ctx,
		"get",
		"pods",
		"-l",
		"app=kv",
		"-o",
		`jsonpath={range .items[*]}{.spec.nodeName}{"\n"}{end}`,
	)
	if err != nil {
		return err
	}

	different := map[string]bool{}
	for n := range strings.FieldsSeq(nodes) {
		different[n] = true
	}

	if want := min(3, max(1, d.Nodes)); len(different) != want {
		return fmt.Errorf("3 replicas are on %d nodes, want %d: %s", len(different), want, listing)
	}

	for i := range 3 {
		pod := fmt.Sprintf("kv-%d", i)
		node, err := d.kubectl(ctx, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")
		if err != nil {
			return err
		}

		volume, err := d.kubectl(
			ctx,
			"get",
			"persistentvolumeclaim",
			"data-"+pod,
			"-o",
			"jsonpath={.spec.volumeName}",
		)
		if err != nil {
			return err
		}

		affinity, err := d.kubectl(
			ctx,
			"get",
			"persistentvolume",
			volume,
			"-o",
			"jsonpath={.spec.nodeAffinity}",
		)
		if err != nil {
			return err
		}
		if err := contains(affinity, `"`+node+`"`); err != nil {
			return fmt.Errorf("volume %s of %s: %w", volume, pod, err)
		}
	}

	return nil
}

func (d *Demo) reachReplicas(ctx context.Context) error {
	for i := range 3 {
		host := fmt.Sprintf("kv-%d.kv-nodes.demo.svc.cluster.local:8080/info", i)

		// DNS caches that a name was not there for some seconds
		err := until(ctx, 30*time.Second, func() error {
			out, err := d.read(ctx, "kv-0", host)
			return errors.Join(err, contains(out, fmt.Sprintf(`"host":"kv-%d"`, i)))
		})
		if err != nil {
			return err
		}
	}

	return nil
}

func (d *Demo) scaleDown(ctx context.Context) error {
	if _, err := d.kubectl(ctx, "scale", "statefulset/kv", "--replicas=1"); err != nil {
		return err
	}
	_, err := d.kubectl(ctx, "wait", "--for=delete", "pod/kv-1", "pod/kv-2", "--timeout=120s")
	return err
}

// update sets the new image in the containers that a rolling update is about.
func (d *Demo) update(ctx context.Context) error {
	if _, err := d.kubectl(ctx, "set", "image", "statefulset/kv", "kv=docker.io/trivet/demo:2", "watch=docker.io/trivet/demo:2"); err != nil {
		return err
	}
	if err := d.awaitReady(ctx); err != nil {
		return err
	}

	out, err := d.read(ctx, "kv-0", "127.0.0.1:8080/version")
	if err != nil {
		return err
	}
	if strings.TrimSpace(out) != "2" {
		return fmt.Errorf("version %q after the update, want 2", strings.TrimSpace(out))
	}

	return nil
}

func (d *Demo) deletePod(ctx context.Context) error {
	want := fmt.Sprintf("kept-%d", time.Now().UnixNano())
	if err := d.put(ctx, "kept", want); err != nil {
		return err
	}

	uid, err := d.kubectl(ctx, "get", "pod", "kv-0", "-o", "jsonpath={.metadata.uid}")
	if err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "delete", "pod", "kv-0", "--timeout=60s"); err != nil {
		return err
	}

	err = until(ctx, 60*time.Second, func() error {
		now, err := d.kubectl(ctx, "get", "pod", "kv-0", "-o", "jsonpath={.metadata.uid}")
		if err == nil && now == uid {
			err = errors.New("the old pod is still there")
		}

		return err
	})
	if err != nil {
		return err
	}
	if err := d.awaitReady(ctx); err != nil {
		return err
	}

	out, err := d.read(ctx, "kv-0", "127.0.0.1:8080/kv/kept")
	if err != nil {
		return err
	}
	if out != want {
		return fmt.Errorf("the value reads %q after the pod was replaced, want %q", out, want)
	}

	return nil
}

// deleteClaims removes the workload and its claims, and waits until the volumes are gone, too.
func (d *Demo) deleteClaims(ctx context.Context) error {
	volumes, err := d.kubectl(
		ctx,
		"get",
		"persistentvolumeclaims",
		"-o",
		`jsonpath={range .items[*]}persistentvolume/{.spec.volumeName}{"\n"}{end}`,
	)
	if err != nil {
		return err
	}

	for _, kinds := range []string{"statefulsets,jobs", "persistentvolumeclaims"} {
		if _, err := d.kubectl(ctx, "delete", kinds, "--all", "--timeout=60s"); err != nil {
			return err
		}
	}

	_, err = d.kubectl(
		ctx,
		append([]string{"wait", "--for=delete", "--timeout=60s"}, strings.Fields(volumes)...)...,
	)

	return err
}

func (d *Demo) deleteRest(ctx context.Context) error {
	_, err := d.kubectl(
		ctx,
		"delete",
		"-f",
		d.manifest("app.yaml"),
		"-f",
		d.manifest("job.yaml"),
		"--ignore-not-found",
		"--timeout=120s",
	)
	return err
}
