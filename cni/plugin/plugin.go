// Package plugin is the CNI protocol round the plugins: it finds the one that is called, hands the call to
// it, and gives an error its CNI code. https://www.cni.dev/docs/spec/ version 1.1.
//
// A new plugin is one file, in interfaces if it makes a container's interface, in addresses if it allocates
// addresses or in chained if it works on what others have made, and one line in the table of this file.
package plugin

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containernetworking/cni/pkg/version"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/plugin/addresses"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/plugin/chained"
	"github.com/trivet-node/trivet/cni/plugin/interfaces"
)

// Versions returns the versions of CNI that the plugin speaks which the program is called as: chained
// plugins need what prevResult has since.
func Versions() version.PluginInfo {
	switch programName() {
	case "bandwidth":
		return version.VersionsStartingFrom("0.3.0")
	case "firewall":
		return version.VersionsStartingFrom("0.4.0")
	}
	return version.All
}

// network is one plugin. Add and Check see the container's namespace and prevResult. Del must work without
// both, and with a configuration that Add refuses. GC deletes nothing unless the runtime sent a list of its
// attachments. Status returns an error when Add would fail.
type network interface {
	Add(*call.Call) error
	Check(*call.Call) error
	Del(*call.Call) error
	GC(*call.Call) error
	Status(*call.Call) error
}

// own is the type of the plugin that upstream does not have, and the name of the program.
const own = conf.Own

// plugins are what the program can be called as, by name.
var plugins = map[string]network{
	own:            interfaces.Bridge{HostPorts: true},
	"bridge":       interfaces.Bridge{},
	"ptp":          interfaces.PointToPoint{},
	"loopback":     interfaces.Loopback{},
	conf.HostLocal: addresses.HostLocal{},
	conf.Static:    addresses.Static{},
	"portmap":      chained.PortMap{},
	"firewall":     chained.Firewall{},
	"bandwidth":    chained.Bandwidth{},
	"tuning":       chained.Tuning{},
	"sbr":          chained.SourceRoutes{},
}

// Names lists what the program can be called as, beside its own name.
func Names() (all []string) {
	for name := range plugins {
		if name != own {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// programName is what the program is called as.
func programName() string { return filepath.Base(os.Args[0]) }

// roleOf returns the name of the plugin that is called: that of the program, whatever the configuration
// says. An IPAM plugin gets that of the main plugin, whose type is then another one (CNI specification,
// section 4): by its own name, the program is host-local there.
func roleOf(program string, h conf.Head) (string, error) {
	if program == own && h.Type != own && h.IPAMType == own {
		return conf.HostLocal, nil
	}
	if _, ok := plugins[program]; !ok {
		const format = "%w: program %s is not a plugin; link %s to one of %v"
		return program, fmt.Errorf(format, conf.ErrInvalid, program, own, Names())
	}
	return program, nil
}
