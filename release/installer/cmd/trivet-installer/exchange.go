package main

import (
	"context"
	"path/filepath"

	"github.com/trivet-node/trivet/internal/lockfile"
	"github.com/trivet-node/trivet/internal/program"

	"github.com/trivet-node/trivet/release/installer/kubepods"
	"github.com/trivet-node/trivet/release/installer/launch"
	"github.com/trivet-node/trivet/release/installer/seat"
	"github.com/trivet-node/trivet/release/installer/swap"
	"github.com/trivet-node/trivet/release/installer/unit"
)

// runExchange carries out the order of the folder, on the machine.
func runExchange(ctx context.Context, env *program.Env) error {
	fs := env.Flags("trivet-installer exchange carries out the order that the installer's pod has given.")
	name := fs.String("part", "", "cri or node")
	folder := fs.String("folder", "", "directory of the order; empty: "+stateDir+"/PART")
	if err := env.Parse(fs); err != nil {
		return err
	}
	p, err := parsePart(*name)
	if err != nil {
		return err
	}
	if *folder == "" {
		*folder = filepath.Join(stateDir, *name)
	}

	// Both parts change the agent's service.
	what := "exchange of a seat of this node"
	if err := lockfile.Hold(ctx, "/run/trivet-installer.lock", what); err != nil {
		return err
	}

	machine := swap.Machine{
		Folder: swap.Folder(*folder),
		Log:    env.Log,
		Seat: p.seat(seat.Host{
			Units:  unit.Host{},
			Pods:   kubepods.Group{},
			Folder: swap.Folder(*folder),
			Log:    env.Log,
		}),
	}
	if err := machine.Run(ctx); err != nil {
		return err
	}
	return launch.Machine{Part: *name, Units: unit.Host{}}.Retire(ctx)
}
