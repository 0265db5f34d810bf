// Command trivet-installer puts trivet-cri or trivet-node on a node and takes it away again. It runs twice:
// in a pod on the node, and as a service of the node's machine, which does the exchange.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/trivet-node/trivet/internal/program"
)

const about = `
trivet-installer puts trivet-cri or trivet-node on the node that its pod runs on, if the node has a label
(deploy/cri, deploy/node), and gives the node back what it had when the label is taken away. It begins again
by itself after it was killed, and takes an exchange back when the node does not become Ready.

  trivet-installer attend     in the pod: waits for the label, drains, gives orders to the machine
  trivet-installer exchange   on the machine: carries out the order that was given`

// verbs are what the program does.
var verbs = map[string]func(ctx context.Context, env *program.Env) error{
	"attend":   runAttend,
	"exchange": runExchange,
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "exchange" {
		program.Tool("trivet-installer", run)
	}
	program.Main("trivet-installer", run)
}

func run(ctx context.Context, env *program.Env) error {
	if len(env.Args) > 0 && verbs[env.Args[0]] != nil {
		verb := verbs[env.Args[0]]
		env.Args = env.Args[1:]
		return verb(ctx, env)
	}

	if err := env.Parse(env.Flags(about)); err != nil {
		return err
	}
	return &program.UsageError{Err: errors.New("say attend or exchange (see trivet-installer --help)")}
}

// parsePart reads the part of the flags.
func parsePart(name string) (part, error) {
	p, ok := parts[name]
	if !ok {
		return p, &program.UsageError{Err: fmt.Errorf("--part: %q is neither cri nor node", name)}
	}
	return p, program.RequireRoot()
}
