package kind

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trivet-node/trivet/e2e/demo"
	"github.com/trivet-node/trivet/e2e/kind/part"
)

// poolSize is the share of each node of the disk that the nodes share.
const poolSize = "10Gi"

// prove is how long a part's process has to run before the next part is put into a node: a demo is shown
// meanwhile.
const prove = "20s"

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

	// Reboots says that the worker is restarted with each part.
	Reboots bool
}

// all parts. Nodes that have trivet from the start lack the first two only.
func (o Course) all() []step {
	c := o.Cluster
	files := part.Files{Deploy: filepath.Join(c.Source, "deploy")}
	csi := part.CSI{
		Cluster:       c,
		Files:         files,
		PoolSize:      poolSize,
		SnapshotKinds: filepath.Join(c.Bin, "snapshot-kinds.yaml"),
	}
	steps := []step{
		{part.CNI{Cluster: c, Files: files}, pods},
		{csi, volumes},
	}
	if c.Trivet {
		return steps
	}

	worker, plane := c.name().worker(), c.name().controlPlane()
	runtime := part.CRI{
		Cluster: c,
		Files:   files,
		Node:    worker,
		Prove:   prove,
	}
	agent := part.Agent(runtime)
	onPlane := agent
	onPlane.Node = plane
	return append(steps, step{runtime, volumes}, step{agent, volumes}, step{onPlane, volumes})
}

// All says how many parts there are.
func (o Course) All() int { return len(o.all()) }

// Install puts each part into its seat and shows the demo after each, unless that was done by a call that was
// cut off. What an installer may take back is on trial meanwhile.
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
			if err := o.show(ctx, s.works, i < len(parts)-1); err != nil {
				return fmt.Errorf("with %s: %w", s.part, err)
			}
		}

		if o.Reboots {
			if err := o.reboot(ctx, s); err != nil {
				return fmt.Errorf("a restart with %s: %w", s.part, err)
			}
		}

		record.Parts = i + 1
		if err := o.Cluster.write(record); err != nil {
			return err
		}
	}

	for _, s := range parts {
		if err := o.installed(ctx, s.part); err != nil {
			return err
		}
	}
	return o.clean(ctx)
}

// reboot restarts the worker with a part that is there for good, and makes the checks.
func (o Course) reboot(ctx context.Context, s step) error {
	if err := o.installed(ctx, s.part); err != nil {
		return err
	}
	if err := o.restartWorker(ctx); err != nil {
		return err
	}
	return o.checks(s.works).Run(ctx)
}

// installed returns when a part is there for good.
func (o Course) installed(ctx context.Context, p part.Part) error {
	tried, is := p.(part.Tried)
	if !is {
		return nil
	}
	said, err := tried.Installed(ctx)
	if err == nil {
		o.Cluster.Say("%s: %s", p, said)
	}
	return err
}

// Remove takes the parts away in reverse, and shows the demo after each as far as it works without.
func (o Course) Remove(ctx context.Context) error {
	record, err := ReadRecord(o.Cluster.Dir)
	if err != nil {
		return err
	}

	steps := o.all()
	for i := len(steps) - 1; i >= o.Parts; i-- {
		if err := o.leave(ctx, steps, i); err != nil {
			return err
		}
		if i >= record.Parts {
			// It has never been there, or only in part.
			continue
		}

		left := nothing
		if i > 0 {
			left = steps[i-1].works
		}
		if err := o.show(ctx, left, i > max(o.Parts, 1)); err != nil {
			return fmt.Errorf("without %s: %w", steps[i].part, err)
		}

		record.Parts = i
		if err := o.Cluster.write(record); err != nil {
			return err
		}
	}

	if err := o.removed(ctx, steps[min(o.Parts, len(steps)):]); err != nil {
		return err
	}
	return o.clean(ctx)
}

// leave takes a part away. What an installer may bring back is on trial until the last such part is.
func (o Course) leave(ctx context.Context, steps []step, i int) error {
	p := steps[i].part
	if _, tried := p.(part.Tried); !tried {
		if err := o.removed(ctx, steps[i+1:]); err != nil {
			return err
		}
	}

	o.Cluster.Say("removing %s", p)
	if err := p.Remove(ctx); err != nil {
		return fmt.Errorf("remove %s: %w", p, err)
	}
	o.Cluster.Say("%s is removed", p)
	return nil
}

// removed returns when there is nothing of the parts any more that an installer may bring back.
func (o Course) removed(ctx context.Context, steps []step) error {
	for _, s := range slices.Backward(steps) {
		if tried, is := s.part.(part.Tried); is {
			if err := tried.Removed(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// show runs the demo, or a brief one, and beside it checks what that does not show. What the cluster deletes
// afterwards is not waited for until clean.
func (o Course) show(ctx context.Context, how works, brief bool) error {
	if how == nothing {
		return nil
	}

	log, err := os.OpenFile(o.Cluster.path(demoLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()

	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	d := o.demo()
	d.Out = io.MultiWriter(d.Out, log)
	d.NoClaims, d.Brief = how < volumes, brief
	group.Go(func() error { return d.Run(ctx) })
	group.Go(func() error { return o.checks(how).Run(ctx) })
	if err := group.Wait(); err != nil {
		return err
	}

	what := "ports of hosts, limits, growth and snapshots"
	if how < volumes {
		what = "ports of hosts and limits"
	}
	o.Cluster.Say("the demo, %s work (%.0f s)", what, time.Since(began).Seconds())
	return nil
}

// demoLog is the file with all that the demos have shown.
const demoLog = "demo.log"

func (o Course) demo() demo.Demo {
	return demo.Demo{
		Kubectl:    o.Cluster.lookPath("kubectl"),
		Kubeconfig: o.Cluster.Kubeconfig(),
		Manifests:  filepath.Join(o.Cluster.Source, "deploy/demo"),
		Out:        o.Cluster.sampled(),
		Nodes:      2,
		NoWait:     true,
	}
}

// Restart restarts the worker and shows the demo afterwards.
func (o Course) Restart(ctx context.Context) error {
	record, err := ReadRecord(o.Cluster.Dir)
	if err != nil {
		return err
	}
	if err := o.restartWorker(ctx); err != nil {
		return err
	}

	how := nothing
	if record.Parts > 0 {
		how = o.all()[record.Parts-1].works
	}
	return errors.Join(o.show(ctx, how, false), o.clean(ctx))
}

// restartWorker restarts a node, as a host that is rebooted does, and returns when its pods are Ready again.
func (o Course) restartWorker(ctx context.Context) error {
	c := o.Cluster
	node := c.name().worker()
	c.Say("restarting %s", node)
	began := time.Now()
	if _, err := c.Output(ctx, "", "docker", "restart", node); err != nil {
		return err
	}
	if err := part.Restarted(ctx, c, node, began); err != nil {
		return err
	}

	c.Say("all pods of %s are Ready again, after %.0f s", node, time.Since(began).Seconds())
	return nil
}

// clean returns when nothing is left of demo and checks.
func (o Course) clean(ctx context.Context) error {
	d := o.demo()
	return errors.Join(d.Clean(ctx), o.checks(nothing).Clean(ctx))
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
