// Command trivet-csi serves local volumes with enforced sizes over CSI, registers itself with kubelet, and
// provisions the claims of its node.
package main

import (
	"context"

	"github.com/trivet-node/trivet/internal/program"
)

func main() {
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
