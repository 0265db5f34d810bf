// Command trivet-csi serves local volumes with enforced sizes over CSI, registers itself with kubelet, and
// provisions the claims of its node.
package main

import (
	"context"
	"os"

	"github.com/trivet-node/trivet/internal/program"
)

// verbs are what a person asks for, by the first argument. Without one the driver is served.
var verbs = map[string]func(context.Context, *program.Env) error{
	"delete":    deleteVolume,
	"doctor":    diagnose,
	"export":    exportVolume,
	"import":    importVolume,
	"object":    printObject,
	"pool":      showPool,
	"snapshots": listSnapshots,
	"volumes":   listVolumes,
}

func main() {
	if len(os.Args) > 1 && verbs[os.Args[1]] != nil {
		program.Tool("trivet-csi", verbs[os.Args[1]])
	}
	program.Main("trivet-csi", run)
}

func run(ctx context.Context, env *program.Env) error {
	if len(env.Args) > 0 && env.Args[0] == "forget-node" {
		return forgetNode(ctx, env)
	}

	o, err := parse(env)
	if err != nil {
		return err
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}
	if o.probe {
		return probe(ctx, o.endpoint)
	}
	program.SmallHeap()
	return serve(ctx, env, o)
}
