// Command trivet-callers has cnitool, multus, podman, nerdctl, containerd and CRI-O use trivet-cni under the
// names of upstream's plugins.
package main

import (
	"context"
	"os"
	"strings"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/callers"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-callers installs trivet-cni under the names of upstream's plugins on a machine made of
namespaces, and has programs that call plugins make networks, containers and ports of the host there, and take
them away again. What is left then, or does not work, is an error.`

func main() { program.Main("trivet-callers", run) }

func run(ctx context.Context, env *program.Env) error {
	if done, err := machine.Verb(ctx, env.Args); done {
		return err
	}

	r := callers.Run{Out: env.Stdout}
	fs := env.Flags(about)
	fs.StringVar(&r.Plugin, "plugin", "bin/trivet-cni", "the program trivet-cni")
	fs.StringVar(&r.Programs, "programs", ".trivet/bin", "directory of the reference programs")
	fs.StringVar(&r.Images, "images", ".trivet/images/base", "layout of the images")
	fs.StringVar(&r.Work, "work", ".trivet/callers", "directory for what is written")
	names := fs.String("callers", strings.Join(callers.Names(), ","), "which callers, by commas")
	if err := env.Parse(fs); err != nil {
		return err
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}
	if err := bench.Absolute(&r.Plugin, &r.Programs, &r.Images, &r.Work); err != nil {
		return err
	}

	must := os.Getenv("TRIVET_MUST_RUN") != ""
	return r.Do(ctx, strings.Split(*names, ","), must)
}
