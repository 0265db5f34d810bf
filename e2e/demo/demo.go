// Package demo shows a stateful workload on a cluster, with the real kubectl, step by step as a person would:
// apply, get, describe, logs, exec, port-forward, cp, scale, rolling update, delete a pod, delete a claim.
// Each step checks what it shows.
package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const namespace = "demo"

// Demo runs against one cluster.
type Demo struct {
	Kubectl    string // the program
	Kubeconfig string
	Manifests  string // directory with app.yaml and job.yaml
	Out        io.Writer
	Nodes      int // replicas are spread over this many nodes

	start time.Time
	work  string // scratch directory
}

type step struct {
	name string
	do   func(*Demo, context.Context) error
}

var steps = []step{
	{"apply the application (StatefulSet, Services, ConfigMap, Secret)", (*Demo).apply},
	{"wait until it is ready", (*Demo).awaitReady},
	{"get", (*Demo).get},
	{"describe", (*Demo).describe},
	{"Job: write through the Service by name and read back", (*Demo).job},
	{"logs -f", (*Demo).followLogs},
	{"exec -it", (*Demo).exec},
	{"port-forward", (*Demo).portForward},
	{"cp to and from the pod", (*Demo).copyFiles},
	{"scale 1 -> 3", (*Demo).scaleUp},
	{"reach every replica by its own name", (*Demo).reachReplicas},
	{"scale 3 -> 1", (*Demo).scaleDown},
	{"set image: rolling update to version 2", (*Demo).update},
	{"delete the pod: its data is still there", (*Demo).deletePod},
	{"delete the claims: their space is given back", (*Demo).deleteClaims},
	{"delete the namespace (the controller-manager looks at it 5 s later)", (*Demo).deleteRest},
}

// Run does all steps and prints each with its time. It starts by removing what an earlier run has left, and
// leaves nothing itself.
func (d *Demo) Run(ctx context.Context) (err error) {
	d.start = time.Now()
	if d.work, err = os.MkdirTemp("", "trivet-demo-"); err != nil {
		return err
	}
	defer os.RemoveAll(d.work)

	if _, err := d.kubectl(ctx, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s"); err != nil {
		return err
	}

	for i, s := range steps {
		began := time.Now()
		if err := s.do(d, ctx); err != nil {
			return fmt.Errorf("demo step %d, %s: %w", i+1, s.name, err)
		}

		fmt.Fprintf(
			d.Out,
			"%6.1fs  %2d. %s (%.1f s)\n",
			time.Since(d.start).Seconds(),
			i+1,
			s.name,
			time.Since(began).Seconds(),
		)
	}

	return nil
}

func (d *Demo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(
		ctx,
		d.Kubectl,
		append([]string{"--kubeconfig=" + d.Kubeconfig, "--namespace=" + namespace}, args...)...,
	)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// kubectl returns what the command prints; its error has what it said on stderr.
func (d *Demo) kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := d.command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s",
			strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// show prints a command's output, indented.
func (d *Demo) show(ctx context.Context, args ...string) (string, error) {
	out, err := d.kubectl(ctx, args...)
	if err != nil {
		return out, err
	}
	fmt.Fprintf(d.Out, "         $ kubectl %s\n", strings.Join(args, " "))
	for line := range strings.Lines(out) {
		fmt.Fprintf(d.Out, "           %s", line)
	}
	return out, nil
}

// until repeats a look until it finds what it wants or the time is over.
func until(ctx context.Context, limit time.Duration, look func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := look()
		if err == nil || time.Now().After(deadline) {
			return err
		}

		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func contains(text, want string) error {
	if strings.Contains(text, want) {
		return nil
	}
	return fmt.Errorf("%q is not in: %s", want, strings.TrimSpace(text))
}

func (d *Demo) manifest(name string) string { return filepath.Join(d.Manifests, name) }
