package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/klog/v2"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/lockfile"
	"github.com/trivet-node/trivet/internal/program"

	"github.com/trivet-node/trivet/release/installer/attend"
	"github.com/trivet-node/trivet/release/installer/launch"
	"github.com/trivet-node/trivet/release/installer/swap"
	"github.com/trivet-node/trivet/release/installer/unit"
)

// attendFlags are those of the pod.
type attendFlags struct {
	part, node, host string
	drainLimit       time.Duration
	pause            time.Duration
	trial, prove     time.Duration
}

func parseAttend(env *program.Env) (f attendFlags, err error) {
	fs := env.Flags("trivet-installer attend waits for the label of its node, in a pod on that node.")
	fs.StringVar(&f.part, "part", "", "cri or node")
	fs.StringVar(&f.node, "node-name", os.Getenv("NODE_NAME"), "name of the Node; empty: $NODE_NAME")
	fs.StringVar(&f.host, "host", "/host", "where the file system of the machine is mounted")
	fs.DurationVar(&f.drainLimit, "drain-timeout", 5*time.Minute, "after which a drain is given up")
	fs.DurationVar(&f.pause, "drain-pause", 10*time.Minute, "until a drain that was given up is tried again")
	const trial = "in which the node has to be Ready, or goes back"
	fs.DurationVar(&f.trial, "ready-timeout", 2*time.Minute, trial)
	const prove = "for which one process has to run, while the node is in use, or it goes back"
	fs.DurationVar(&f.prove, "prove", 45*time.Second, prove)
	if err := env.Parse(fs); err != nil {
		return f, err
	}
	if f.node == "" {
		return f, &program.UsageError{Err: errors.New("--node-name: no node is named")}
	}
	return f, f.check()
}

// check refuses times in which nothing could be tried.
func (f attendFlags) check() error {
	for flag, value := range map[string]time.Duration{"--ready-timeout": f.trial, "--prove": f.prove} {
		if value <= 0 {
			return &program.UsageError{Err: fmt.Errorf("%s=%s: it is not more than zero", flag, value)}
		}
	}
	return nil
}

// runAttend attends to the node until it is ended.
func runAttend(ctx context.Context, env *program.Env) error {
	f, err := parseAttend(env)
	if err != nil {
		return err
	}
	p, err := parsePart(f.part)
	if err != nil {
		return err
	}

	program.SmallHeap()
	klog.SetSlogLogger(env.Log)
	client, err := connect()
	if err != nil {
		return err
	}

	machine, folder, err := prepare(ctx, f, p)
	if err != nil {
		return err
	}
	state, err := machine.State()
	if err != nil {
		return err
	}

	env.Log.Info("attends", "node", f.node, "part", f.part, "state", string(state))
	attend.New(client, machine, folder, attend.Config{
		Part:          f.part,
		Node:          f.node,
		Label:         p.label,
		State:         state,
		Version:       program.Version,
		Drains:        p.drains,
		RuntimePrefix: p.runtimePrefix,
		DrainLimit:    f.drainLimit,
		Pause:         f.pause,
		Trial:         f.trial,
		Prove:         f.prove,
		Log:           env.Log,
	}).Run(ctx)
	return nil
}

// prepare finds the machine, and makes this the only process that attends to it: the pod of the version
// before may still be ending.
func prepare(ctx context.Context, f attendFlags, p part) (m launch.Machine, folder swap.Folder, err error) {
	own, err := os.Executable()
	if err != nil {
		return m, folder, err
	}
	m = launch.Machine{
		Part:    f.part,
		Units:   unit.Host{Root: f.host},
		Root:    f.host,
		Folder:  swap.Folder(filepath.Join(stateDir, f.part)),
		Files:   p.files,
		Program: own,
		Version: program.Version,
	}

	lock := filepath.Join(f.host, "run/trivet-installer-"+f.part+".lock")
	err = lockfile.Hold(ctx, lock, "installer of "+f.part+" on this node")
	return m, swap.Folder(filepath.Join(f.host, string(m.Folder))), err
}

func connect() (*kube.Client, error) {
	cfg, err := kube.InCluster()
	if err != nil {
		return nil, &program.CantRunError{
			What: "API server: " + err.Error(),
			Do:   "run it as a pod with a service account (deploy/cri, deploy/node)",
		}
	}

	// While the node is changed, so may be what the API server is behind.
	cfg.DialTimeout = 3 * time.Second
	cfg.UserAgent = "trivet-installer/" + program.Version
	return kube.New(cfg)
}
