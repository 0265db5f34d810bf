// Package plugin is the CNI protocol round the plugins: it finds the one that is called, hands the call to
// it, and gives an error its CNI code. https://www.cni.dev/docs/spec/ version 1.1.
//
// A new plugin is one file, in interfaces if it makes a container's interface or in addresses if it allocates
// addresses, and one line in the table of this file.
package plugin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/plugin/addresses"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/plugin/interfaces"
	"github.com/trivet-node/trivet/cni/tally"
)

// Versions are the versions of CNI that all plugins speak.
var Versions = version.All

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
const own = "trivet-cni"

// hostLocal is the type of the IPAM plugin that is built in.
const hostLocal = "host-local"

// plugins are what the program can be called for, by type.
var plugins = map[string]network{
	own:        interfaces.Bridge{HostPorts: true},
	"bridge":   interfaces.Bridge{},
	"loopback": interfaces.Loopback{},
	hostLocal:  addresses.HostLocal{},
}

// typeOf returns the type of the plugin that is called. A plugin is called by the name of its type, and an
// IPAM plugin by that of ipam.type, while type is then that of the main plugin, which called it (CNI
// specification, section 4). A program of another name, as in a test, is taken for what type says.
func typeOf(program string, h conf.Head) string {
	if _, ok := plugins[program]; ok && program != own {
		return program
	}
	if h.IPAM.Type == program && h.Type != program {
		return hostLocal
	}
	return h.Type
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
	program := filepath.Base(os.Args[0])
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

	kind := typeOf(program, h)
	what := o.describe(args, h, kind)
	p, ok := plugins[kind]
	if !ok {
		err := fmt.Errorf("%w: program %s is not a plugin of type %q", conf.ErrInvalid, program, h.Type)
		return cniError(what, err)
	}

	c := call.New(h, args)
	if o.inPod {
		err = prepare(c, args.NetnsOverride)
	}
	if err == nil {
		err = o.do(p, c)
	}

	return cniError(what, err)
}

// describe names the call in errors.
func (o operation) describe(args *skel.CmdArgs, h conf.Head, kind string) string {
	what := fmt.Sprintf("%s of network %s (%s)", o.verb, h.Name, kind)
	if args.ContainerID != "" {
		what += ", container " + args.ContainerID
	}
	return what
}

// prepare reads prevResult, and refuses the namespace that the plugin itself runs in before anything is made
// there: the CNI library refuses it when all is done and the result is out. override is CNI_NETNS_OVERRIDE.
func prepare(c *call.Call, override string) error {
	if err := c.ReadPrevious(); err != nil {
		return err
	}
	if o := strings.ToUpper(override); o == "TRUE" || o == "1" {
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
	if err := p.Status(c); err != nil {
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
	return nil
}
