package main

import (
	"github.com/trivet-node/trivet/release/installer/launch"
	"github.com/trivet-node/trivet/release/installer/seat"
	"github.com/trivet-node/trivet/release/installer/swap"
)

// part is what the installer knows to put on a node.
type part struct {
	label string

	// files are those of the image.
	files []launch.File

	// drains and runtimePrefix are those of attend.Config.
	drains        bool
	runtimePrefix string

	seat func(seat.Host) swap.Seat
}

var parts = map[string]part{
	"cri": {
		label: "trivet.dev/cri",
		files: []launch.File{
			{Path: "/usr/local/bin/trivet-cri", Mode: 0o755},
			{Path: "/usr/local/bin/trivet-monitor", Mode: 0o755},
			{Path: "/usr/share/trivet-cri/trivet-cri.service", Mode: 0o644},
			{Path: "/usr/share/trivet-cri/cri.toml", Mode: 0o644},
		},
		drains:        true,
		runtimePrefix: "trivet-cri://",
		seat:          func(h seat.Host) swap.Seat { return seat.Runtime{Host: h} },
	},
	"node": {
		label: "trivet.dev/node",
		files: []launch.File{
			{Path: "/usr/local/bin/trivet-node", Mode: 0o755},
			{Path: "/usr/share/trivet-node/trivet-node.service", Mode: 0o644},
		},
		seat: func(h seat.Host) swap.Seat { return seat.Agent{Host: h} },
	},
}

// stateDir has a folder for each part, on the machine.
const stateDir = "/var/lib/trivet/installer"
