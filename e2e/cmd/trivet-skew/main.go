// Command trivet-skew brings up a cluster of each of several versions of Kubernetes, shows the demo on it,
// and keeps what came out as data.
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/trivet-node/trivet/e2e/skew"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-skew DIRECTORY... brings up a cluster of the control plane, kube-proxy, kubectl and
kubelet in each directory, one after the other: with trivet in all seats of the node, and with the kubelet in
the seat of trivet-node. It shows the demo on it and takes it down. make skew builds the programs.`

func main() { program.Tool("trivet-skew", run) }

func run(ctx context.Context, env *program.Env) error {
	fs := env.Flags(about)
	cluster := fs.String("cluster", "bin/trivet-cluster", "the program trivet-cluster")
	dir := fs.String("dir", ".trivet/skew/cluster", "state directory of the clusters")
	oci := fs.String("oci", "crun", "OCI runtime: crun or runc")
	agents := fs.String("agents", "trivet,kubelet", "agents to try")
	data := fs.String("data", "", "file that keeps the results")
	if err := env.Parse(fs); err != nil {
		return err
	}

	trial := skew.Trial{
		Program: *cluster,
		Dir:     *dir,
		OCI:     *oci,
		Out:     env.Stdout,
	}
	var bad []error
	for _, bin := range fs.Args() {
		for agent := range strings.SplitSeq(*agents, ",") {
			r, err := trial.Try(ctx, bin, agent)
			if err != nil {
				return err
			}
			if r.Failure != "" {
				bad = append(bad, fmt.Errorf("%s with %s: %s", r.Kubernetes, agent, r.Failure))
			}
			if *data == "" {
				continue
			}
			if err := skew.Add(*data, r); err != nil {
				return err
			}
		}
	}
	return errors.Join(bad...)
}
