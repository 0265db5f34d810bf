// Package plugin is the CNI protocol round the plugins: it finds the one that is called, hands the call to
// it, and gives an error its CNI code. https://www.cni.dev/docs/spec/ version 1.1.
//
// A new plugin is one file, in interfaces if it makes a container's interface, in addresses if it allocates
// addresses or in chained if it works on what others have made, and one line in the table of this file.
package plugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/plugin/addresses"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/plugin/chained"
	"github.com/trivet-node/trivet/cni/plugin/interfaces"
	"github.com/trivet-node/trivet/cni/tally"
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
	if program == own && h.Type != own && h.IPAM.Type == own {
		return conf.HostLocal, nil
	}
	if _, ok := plugins[program]; !ok {
		const format = "%w: program %s is not a plugin; link %s to one of %v"
		return program, fmt.Errorf(format, conf.ErrInvalid, program, own, Names())
	}
	return program, nil
}

// Functions returns the operations, for the CNI library.
func Functions() skel.CNIFuncs {
	return skel.CNIFuncs{
		Add:    operation{verb: "ADD", do: network.Add, inPod: true}.run,
		Check:  operation{verb: "CHECK", do: network.Check, inPod: true}.run,
		Del:    operation{verb: "DEL", do: network.Del}.run,
		GC:     operation{verb: "GC", do: network.GC}.run,
		Status: operation{verb: "STATUS", do: status}.run,
	}
}

// operation is one verb of the protocol.
type operation struct {
	verb string
	do   func(network, *call.Call) error
	// inPod is set for those that need the container's namespace and read prevResult.
	inPod bool
}

// run serves a call, and counts it if it is for our own plugin. Its errors are CNI errors.
func (o operation) run(args *skel.CmdArgs) error {
	began := time.Now()
	program := programName()
	err := o.serve(program, args)
	if program == own {
		tally.Add(tally.Path, o.verb, codeOf(err), time.Since(began))
	}
	return err
}

func (o operation) serve(program string, args *skel.CmdArgs) error {
	h, err := conf.ReadHead(args.StdinData)
	if err != nil {
		return cniError(o.verb, err)
	}

	role, err := roleOf(program, h)
	what := o.describe(args, h, role)
	if err != nil {
		return cniError(what, err)
	}

	p := plugins[role]

	c := call.New(h, args)
	if o.inPod {
		err = prepare(c)
	}
	if err == nil {
		err = o.do(p, c)
	}

	return cniError(what, err)
}

// describe names the call in errors.
func (o operation) describe(args *skel.CmdArgs, h conf.Head, role string) string {
	what := fmt.Sprintf("%s of network %s (%s)", o.verb, h.Name, role)
	if args.ContainerID != "" {
		what += ", container " + args.ContainerID
	}
	return what
}

// prepare reads prevResult, and refuses the namespace that the plugin itself runs in before anything is made
// there: the CNI library refuses it when all is done and the result is out.
func prepare(c *call.Call) error {
	if err := c.ReadPrevious(); err != nil {
		return err
	}
	if c.AnyNetns {
		return nil
	}

	own, err := c.InOwnNamespace()
	switch {
	case err != nil:
		return fmt.Errorf("%w: CNI_NETNS: %w", errNetns, err)
	case own:
		return fmt.Errorf("%w: CNI_NETNS %s is that of the plugin itself", errNetns, c.Netns)
	}

	return nil
}

// status marks what keeps ADD from working, so that it has the code that says so.
func status(p network, c *call.Call) error {
	err := p.Status(c)
	if err == nil {
		return nil
	}
	if slices.ContainsFunc(shortages, func(s error) bool { return errors.Is(err, s) }) {
		return fmt.Errorf("%w: %w", errLimited, err)
	}
	return fmt.Errorf("%w: %w", errUnavailable, err)
}
