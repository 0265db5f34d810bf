package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/forget"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/program"
)

const aboutForget = `trivet-csi forget-node deletes the PersistentVolumes of nodes that do not exist any more,
and the VolumeSnapshotContents and VolumeGroupSnapshotContents of snapshots there. With the name of a node it
does so at once. With --after it does so for every node that has been gone for so long, until it is ended;
several may run, of which one works.

Claims and VolumeSnapshots that are bound to them are lost, and have to be deleted and made again. On a node
that comes back volumes and snapshots are still there, without objects: trivet-csi doctor names them.`

// forgetOptions are the flags of forget-node.
type forgetOptions struct {
	kubeconfig string
	node       string // the one that is forgotten at once; "": those that are gone for long enough
	after      time.Duration
	namespace  string // of the Lease
}

func parseForget(env *program.Env) (forgetOptions, error) {
	env.Name += " forget-node"
	env.Args = env.Args[1:]
	var o forgetOptions
	if len(env.Args) > 0 && env.Args[0] != "" && env.Args[0][0] != '-' {
		o.node, env.Args = env.Args[0], env.Args[1:]
	}

	fs := env.Flags(aboutForget)
	fs.StringVar(&o.kubeconfig, "kubeconfig", "",
		`credentials for the Kubernetes API; "" takes those of the pod it runs in`)
	fs.DurationVar(&o.after, "after", 0, "how long a node has to be gone, e.g. 24h")
	fs.StringVar(&o.namespace, "lease-namespace", "kube-system",
		"where the Lease is kept by which one of several works")
	if err := env.Parse(fs); err != nil {
		return o, err
	}

	var err error
	switch {
	case fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.node == "" && o.after <= 0:
		err = errors.New("say which node is to be forgotten, or with --after when all are that are gone")
	case o.node != "" && o.after > 0:
		err = errors.New("--after is for all nodes that are gone, not for one")
	}
	if err != nil {
		return o, &program.UsageError{Err: err}
	}
	return o, nil
}

// forgetNode is the command.
func forgetNode(ctx context.Context, env *program.Env) error {
	o, err := parseForget(env)
	if err != nil {
		return err
	}
	client, err := forgetClient(o)
	if err != nil {
		return err
	}

	events := event.New(kube.Events(client), event.Config{Component: driver.Name, Log: env.Log})
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	group.Go(func() { events.Run(sending) })
	defer group.Wait()
	defer stop()

	f := forget.New(forget.Config{
		Driver:      driver.Name,
		TopologyKey: driver.TopologyKey,
		Client:      client,
		Events:      events,
		Log:         env.Log,
	})
	if o.node != "" {
		defer flush(ctx, events)
		return forgetNow(ctx, env, f, o.node)
	}

	turn, err := forgetTurn(client, o)
	if err != nil {
		return err
	}
	env.Log.Info("forgetting nodes that are gone", "after", o.after, "as", turn.Identity)
	f.Run(ctx, turn, o.after)
	return nil
}

// flush waits a moment for what was recorded to be stored. That it is not fails no command.
func flush(ctx context.Context, events *event.Recorder) {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	events.Flush(ctx)
}

const flushLimit = 10 * time.Second

func forgetClient(o forgetOptions) (*kube.Client, error) {
	config, err := credentials(o.kubeconfig)
	if errors.Is(err, kube.ErrNotInCluster) {
		err = &program.UsageError{Err: errors.New("--kubeconfig is needed outside of a pod")}
	}
	if err != nil {
		return nil, err
	}

	config.UserAgent = "trivet-csi-forget/" + program.Version
	client, err := kube.New(config)
	if err != nil {
		return nil, &program.UsageError{Err: err}
	}
	return client, nil
}

// forgetNow forgets one node, and prints what of it.
func forgetNow(ctx context.Context, env *program.Env, f *forget.Forgetter, node string) error {
	dropped, err := f.Node(ctx, node)
	for _, one := range dropped {
		fmt.Fprintln(env.Stdout, one)
	}
	return err
}

func forgetTurn(client *kube.Client, o forgetOptions) (*forget.Turn, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	identity := fmt.Sprintf("%s_%d", name, os.Getpid())
	return forget.NewTurn(client, o.namespace, "trivet-csi-forget", identity), nil
}
