// Package demo shows a stateful workload on a cluster, with the real kubectl, step by step as a person would:
// apply, get, describe, logs, exec, port-forward, cp, scale, top, rolling update, delete a pod, delete a
// claim. Each step checks what it shows.
package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
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

	// Class is the storage class of the claims; empty: that of the manifest.
	Class string

	// NoWait leaves the namespace to the cluster, which takes some seconds to delete it: the next run waits
	// for that, or Clean. Pods and volumes are gone when Run returns.
	NoWait bool

	// Brief begins with all replicas, and leaves out how they are scaled and updated.
	Brief bool

	// NoClaims shows a cluster without a provisioner: the data is in an emptyDir, and what is about claims is
	// left out.
	NoClaims bool
}

// stage is what the steps of one run share.
type stage struct {
	kubectl
	manifests string
	nodes     int
	claims    bool
	noWait    bool
	brief     bool
	class     string
	work      string // scratch directory
}

func (s *stage) manifest(name string) string { return filepath.Join(s.manifests, name) }

type step struct {
	name string
	do   func(context.Context, *stage) error

	// ofClaims says that without claims there is nothing to show, ofWhole that a brief demo leaves it out.
	ofClaims, ofWhole bool
}

var steps = []step{
	{name: "apply the application (StatefulSet, Services, ConfigMap, Secret)", do: apply},
	{name: "wait until it is ready", do: awaitReady},
	{name: "get", do: list},
	{name: "describe", do: describe},
	{name: "Job: write through the Service by name and read back", do: runJob},
	{name: "logs -f", do: followLogs},
	{name: "exec -it", do: execOnTerminal},
	{name: "port-forward", do: forwardPort},
	{name: "cp to and from the pod", do: copyFiles},
	{name: "scale 1 -> 3", do: scaleUp, ofWhole: true},
	{name: "see on which nodes the replicas are", do: checkSpread},
	{name: "reach every replica by its own name", do: reachReplicas},
	{name: "scale 3 -> 1", do: scaleDown, ofWhole: true},
	{name: "top nodes and pods (by metrics-server, where it is installed)", do: top, ofWhole: true},
	{name: "set image: rolling update to version 2", do: update, ofWhole: true},
	{name: "delete the pod: its data is still there", do: deletePod, ofClaims: true},
	{name: "delete the claims: their space is given back", do: deleteClaims, ofClaims: true},
	{name: "delete the namespace (the controller-manager looks at it 5 s later)", do: deleteRest},
}

func (d *Demo) kubectl() kubectl {
	return kubectl{program: d.Kubectl, kubeconfig: d.Kubeconfig, out: d.Out}
}

// Clean removes what an earlier run has left, and returns when it is gone.
func (d *Demo) Clean(ctx context.Context) error {
	_, err := d.kubectl().run(ctx, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")
	return err
}

// Run does all steps and prints each with its time. It starts by removing what an earlier run has left, and
// leaves nothing itself.
func (d *Demo) Run(ctx context.Context) error {
	work, err := os.MkdirTemp("", "trivet-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)

	s := &stage{
		kubectl:   d.kubectl(),
		manifests: d.Manifests,
		nodes:     d.Nodes,
		claims:    !d.NoClaims,
		noWait:    d.NoWait,
		brief:     d.Brief,
		class:     d.Class,
		work:      work,
	}

	start := time.Now()
	if err := d.Clean(ctx); err != nil {
		return err
	}

	for i, step := range steps {
		if step.ofClaims && !s.claims || step.ofWhole && s.brief {
			continue
		}

		began := time.Now()
		if err := step.do(ctx, s); err != nil {
			return fmt.Errorf("demo step %d, %s: %w", i+1, step.name, err)
		}

		fmt.Fprintf(d.Out, "%6.1fs  %2d. %s (%.1f s)\n",
			time.Since(start).Seconds(), i+1, step.name, time.Since(began).Seconds())
	}

	return nil
}
