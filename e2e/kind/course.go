package kind

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/trivet-node/trivet/e2e/demo"
	"github.com/trivet-node/trivet/e2e/kind/part"
)

// poolSize is the share of each node of the disk that the nodes share.
const poolSize = "10Gi"

// step of the course: a part, and how far the demo works when the part is in its seat.
type step struct {
	part  part.Part
	works works
}

// works says how much of the demo a cluster shows.
type works int

const (
	nothing works = iota
	pods
	volumes
)

// Course puts the parts of trivet into a cluster, one after the other, and takes them away again.
type Course struct {
	Cluster *Cluster

	// Parts is how many of the parts are in the cluster in the end, from the first.
	Parts int

	// Once says that the demo is shown with the last part only.
	Once bool
}

// all parts. Nodes that have trivet from the start lack the first two only.
func (o Course) all() []step {
	c := o.Cluster
	files := part.Files{Deploy: filepath.Join(c.Source, "deploy")}
	steps := []step{
		{part.CNI{Cluster: c, Files: files}, pods},
		{part.CSI{Cluster: c, Files: files, PoolSize: poolSize}, volumes},
	}
	if c.Trivet {
		return steps
	}

	worker, plane := c.name().worker(), c.name().controlPlane()
	runtime := part.CRI{
		Cluster: c,
		Files:   files,
		Node:    worker,
		Say:     c.Say,
	}
	agent := part.Agent(runtime)
	onPlane := agent
	onPlane.Node = plane
	return append(steps, step{runtime, volumes}, step{agent, volumes}, step{onPlane, volumes})
}

// All says how many parts there are.
func (o Course) All() int { return len(o.all()) }

// Install puts each part into its seat and shows the demo after each, unless that was done by a call that was
// cut off.
func (o Course) Install(ctx context.Context) error {
	record, err := ReadRecord(o.Cluster.Dir)
	if err != nil {
		return err
	}

	parts := o.all()[:min(o.Parts, o.All())]
	for i, s := range parts {
		o.Cluster.Say("installing %s", s.part)
		if err := s.part.Install(ctx); err != nil {
			return fmt.Errorf("install %s: %w", s.part, err)
		}

		o.Cluster.Say("%s is installed", s.part)
		if i < record.Parts {
			continue
		}
		if !o.Once || i == len(parts)-1 {
			if err := o.show(ctx, s.works); err != nil {
				return fmt.Errorf("with %s: %w", s.part, err)
			}
		}

		record.Parts = i + 1
		if err := o.Cluster.write(record); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes the parts away in reverse, and shows the demo after each as far as it works without.
func (o Course) Remove(ctx context.Context) error {
	record, err := ReadRecord(o.Cluster.Dir)
	if err != nil {
		return err
	}

	steps := o.all()
	for i := len(steps) - 1; i >= o.Parts; i-- {
		o.Cluster.Say("removing %s", steps[i].part)
		if err := steps[i].part.Remove(ctx); err != nil {
			return fmt.Errorf("remove %s: %w", steps[i].part, err)
		}

		o.Cluster.Say("%s is removed", steps[i].part)
		if i >= record.Parts {
			// It has never been there, or only in part.
			continue
		}

		left := nothing
		if i > 0 {
			left = steps[i-1].works
		}
		if err := o.show(ctx, left); err != nil {
			return fmt.Errorf("without %s: %w", steps[i].part, err)
		}

		record.Parts = i
		if err := o.Cluster.write(record); err != nil {
			return err
		}
	}
	return nil
}

// show runs the demo, and checks what that does not show.
func (o Course) show(ctx context.Context, how works) error {
	if how == nothing {
		return nil
	}

	d := demo.Demo{
		Kubectl:    o.Cluster.lookPath("kubectl"),
		Kubeconfig: o.Cluster.Kubeconfig(),
		Manifests:  filepath.Join(o.Cluster.Source, "deploy/demo"),
		Out:        o.Cluster.sampled(),
		Nodes:      2,
		NoClaims:   how < volumes,
	}
	if err := d.Run(ctx); err != nil {
		return err
	}

	o.Cluster.Say("the demo works")
	if err := o.checks(how).Run(ctx); err != nil {
		return err
	}

	o.Cluster.Say("ports of hosts, limits and growth work")
	return nil
}

// TryBroken puts parts that do not work on the worker, which is to be as before each time.
func (o Course) TryBroken(ctx context.Context) error {
	return part.Broken{
		Cluster: o.Cluster,
		Files:   part.Files{Deploy: filepath.Join(o.Cluster.Source, "deploy")},
		Node:    o.Cluster.name().worker(),
		Say:     o.Cluster.Say,
	}.Run(ctx)
}
