// Command trivet-cri is a CRI v1 server: it runs pods for kubelet, trivet-node or crictl.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/internal/program"
)

const about = `
trivet-cri runs pods: it serves the Kubernetes Container Runtime Interface (CRI v1) on a unix socket, for
kubelet, trivet-node or crictl. It needs an OCI runtime (crun or runc), CNI plugins with a configuration, and
trivet-monitor beside it or in PATH. Containers survive it.
"trivet-cri images" imports, exports, lists, tags and removes images on a node where it runs.
Called by the names ctr or containerd, it serves what kind calls of them.`

func main() {
	switch filepath.Base(os.Args[0]) {
	case "ctr":
		program.Tool("ctr", answerCtr)
	case "containerd":
		program.Tool("containerd", answerContainerd)
	}

	if len(os.Args) > 1 && os.Args[1] == "images" {
		program.Tool("trivet-cri", images)
	}
	program.Main("trivet-cri", run)
}

func run(ctx context.Context, env *program.Env) error {
	flags := env.Flags(about)
	settings := newSettings(flags, options)
	const help = "end the running trivet-cri and trivet-monitor, if no pod is left"
	end := flags.Bool("shutdown", false, help)
	if err := env.Parse(flags); err != nil {
		return err
	}

	if flags.NArg() > 0 {
		err := fmt.Errorf("unexpected argument %q (see trivet-cri --help)", flags.Arg(0))
		return &program.UsageError{Err: err}
	}

	cfg, err := settings.load()
	if err != nil {
		return &program.UsageError{Err: err}
	}

	if err := program.RequireRoot(); err != nil {
		return err
	}
	if *end {
		return shutdown(ctx, cfg)
	}

	program.SmallHeap()
	return serve(ctx, cfg, env.Supervisor, env.Log)
}
