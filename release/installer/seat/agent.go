package seat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/trivet-node/trivet/internal/durable"

	"github.com/trivet-node/trivet/release/installer/swap"
	"github.com/trivet-node/trivet/release/installer/unit"
)

// Agent is the seat of the node's agent. The service stays kubelet.service, whose arguments kubeadm and the
// administrator have written: it runs trivet-node in kubelet's place. Pods run on.
type Agent struct{ Host }

// Names of trivet-node on a machine.
const (
	nodeProgram = "/usr/local/bin/trivet-node"
	nodeDropIn  = "/etc/systemd/system/kubelet.service.d/90-trivet-node.conf"
)

// Arrange has kubelet.service run trivet-node, or kubelet.
func (a Agent) Arrange(ctx context.Context, to swap.State, _ []string) (swap.Outage, error) {
	if to == swap.Out {
		if err := a.dismiss(); err != nil {
			return swap.Outage{}, err
		}
	} else if err := a.bring(ctx, to); err != nil {
		return swap.Outage{}, err
	}

	if err := a.Units.Reload(ctx); err != nil {
		return swap.Outage{}, err
	}
	if err := a.isNamed(ctx, to); err != nil {
		return swap.Outage{}, err
	}
	return a.restart(ctx, to)
}

// isNamed refuses a service that a drop-in after that of the installer has run something else.
func (a Agent) isNamed(ctx context.Context, to swap.State) error {
	if to == swap.Out {
		return nil
	}
	program, err := a.Units.Starts(ctx, kubeletUnit)
	if err == nil && program != nodeProgram {
		err = fmt.Errorf("%s starts %s: another drop-in overrides %s", kubeletUnit, program, nodeDropIn)
	}
	return err
}

// Check returns the process that has the seat; zero: it does not run.
func (a Agent) Check(ctx context.Context, in swap.State) (process int, err error) {
	program, err := a.Units.Program(ctx, kubeletUnit)
	if err != nil {
		return 0, err
	}
	if !a.isRight(program, in) {
		return 0, fmt.Errorf("%s runs %q", kubeletUnit, program)
	}
	return a.Units.Process(ctx, kubeletUnit)
}

// isRight reports whether a program is one that the service has to run.
func (a Agent) isRight(program string, in swap.State) bool {
	ours := a.real(nodeProgram)
	if in == swap.Out {
		return program != "" && !strings.HasPrefix(program, ours)
	}
	return program == ours
}

// bring writes the program, and has the service run it from its next start on.
func (a Agent) bring(ctx context.Context, state swap.State) error {
	active, err := a.Units.Active(ctx, nodeUnit)
	if err != nil {
		return err
	}
	if active {
		return fmt.Errorf("%s runs already, not by this installer", nodeUnit)
	}

	text, err := a.Units.Text(ctx, kubeletUnit)
	if err != nil {
		return err
	}
	arguments, err := unit.Command(text, nodeDropIn)
	if err != nil {
		return fmt.Errorf("%s: %w", kubeletUnit, err)
	}

	settings, err := os.ReadFile(a.payload(state, nodeUnit))
	if err != nil {
		return err
	}
	dropIn, err := dropIn(string(settings), arguments)
	if err != nil {
		return err
	}

	if err := a.install(state, []installed{{"trivet-node", nodeProgram, 0o755}}); err != nil {
		return err
	}

	originals, err := a.originals()
	if err != nil {
		return err
	}
	return originals.Write(a.Root+nodeDropIn, []byte(dropIn), 0o644)
}

// dismiss has the service run what it did before. A drop-in that somebody has edited goes, too: what it
// starts does.
func (a Agent) dismiss() error {
	if err := a.restore(nodeDropIn); err != nil {
		return err
	}
	text, err := readFile(a.Root + nodeDropIn)
	if err != nil || !strings.Contains(text, "ExecStart="+nodeProgram) {
		return err
	}
	return os.Remove(a.Root + nodeDropIn)
}

// dropIn has a service run trivet-node with arguments of another program, and with the settings of
// trivet-node's own unit.
func dropIn(ownUnit, arguments string) (string, error) {
	settings, err := unit.Settings(ownUnit, "ExecStart", "EnvironmentFile", "Environment")
	if err != nil {
		return "", fmt.Errorf("%s: %w", nodeUnit, err)
	}

	return "# Written by the installer of trivet-node, which removes it.\n[Service]\n" +
		strings.Join(settings, "\n") + "\n" +
		"# The administrator's: TRIVET_NODE_ARGS.\n" +
		"EnvironmentFile=-/etc/default/trivet-node\n" +
		"ExecStart=\n" +
		"ExecStart=" + strings.TrimSpace(nodeProgram+" "+arguments) + " $TRIVET_NODE_ARGS\n", nil
}

// restart starts the service again if its process is not what is on disk. It returns when that has started,
// or is known not to.
func (a Agent) restart(ctx context.Context, to swap.State) (o swap.Outage, err error) {
	active, err := a.Units.Active(ctx, kubeletUnit)
	if err != nil {
		return o, err
	}
	program, err := a.Units.Program(ctx, kubeletUnit)
	if err != nil {
		return o, err
	}

	if active && a.isRight(program, to) {
		return o, nil
	}

	if err := a.lateInSecond(ctx); err != nil {
		return o, err
	}
	return a.restartAgent(ctx, kubeletUnit, func(context.Context) error { return nil })
}

// Settle removes the program where it does not have the seat.
func (a Agent) Settle(ctx context.Context, in swap.State) error {
	if in != swap.Out {
		return nil
	}
	if err := a.restore(nodeProgram); err != nil {
		return err
	}

	if err := a.removeAll("/var/lib/kubelet/trivet-node.lock"); err != nil {
		return err
	}

	// The directory of drop-ins, if it is empty and so may have been made here.
	dir := a.Root + strings.TrimSuffix(nodeDropIn, "/90-trivet-node.conf")
	if err := os.Remove(dir); err == nil {
		return errors.Join(durable.SyncDir(a.Root+"/etc/systemd/system"), a.Units.Reload(ctx))
	}
	return nil
}
