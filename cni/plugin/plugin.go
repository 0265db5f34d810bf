// Package plugin is the CNI protocol round the parts: it turns a call (environment and JSON) into steps on
// addresses, links and nftables, and their outcome into a result or a CNI error.
// https://www.cni.dev/docs/spec/ version 1.1.
package plugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
)

// Versions that the plugin speaks.
var Versions = version.All

// Functions are the operations, each by the role that the program is called in.
func Functions() skel.CNIFuncs {
	return skel.CNIFuncs{
		Add:    add,
		Del:    del,
		Check:  check,
		GC:     collect,
		Status: status,
	}
}

// operations of one role.
type operations struct {
	add, check  func(*call) error
	del         func(*call) error
	gc, status_ func(*conf.Network) error
}

var byRole = map[conf.Role]operations{
	conf.TrivetCNI: {addBridge, checkBridge, delBridge, gcBridge, statusBridge},
	conf.Bridge:    {addBridge, checkBridge, delBridge, gcBridge, statusBridge},
	conf.HostLocal: {addHostLocal, checkHostLocal, delHostLocal, gcHostLocal, statusHostLocal},
	conf.Loopback:  {addLoopback, checkLoopback, nothing, keepAll, keepAll},
}

func nothing(*call) error         { return nil }
func keepAll(*conf.Network) error { return nil }

// call is one ADD, CHECK or DEL.
type call struct {
	*conf.Network
	args     *skel.CmdArgs
	pool     *ipam.Pool       // in ADD, of a network with IPAM
	previous *types100.Result // nil when the runtime sent none, and in DEL, which does without
}

func (c *call) owner() ipam.Owner {
	return ipam.Owner{ContainerID: c.args.ContainerID, IfName: c.args.IfName}
}

// program is the name that this program was called by.
func program() string { return filepath.Base(os.Args[0]) }

func parse(args *skel.CmdArgs) (*call, error) {
	n, err := conf.Parse(program(), args.StdinData, args.Args)
	if err != nil {
		return nil, err
	}

	c := &call{Network: n, args: args}
	if n.Previous == nil {
		return c, nil
	}

	pc := &types.PluginConf{CNIVersion: n.CNIVersion, RawPrevResult: n.Previous}
	if err := version.ParsePrevResult(pc); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult", err.Error())
	}
	if c.previous, err = types100.NewResultFromResult(pc.PrevResult); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult", err.Error())
	}

	return c, nil
}

// explain gives an error its CNI code and names network and operation.
func explain(verb string, n *conf.Network, err error) error {
	var coded *types.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	code := types.ErrInternal
	if errors.Is(err, ipam.ErrExhausted) {
		code = types.ErrTryAgainLater
	}
	return types.NewError(code, fmt.Sprintf("%s network %s (%s)", verb, n.Name, n.Role), err.Error())
}

func add(args *skel.CmdArgs) error {
	c, err := parse(args)
	if err == nil {
		err = notOwnNamespace(args)
	}
	if err != nil {
		return err
	}
	return explain("add container "+args.ContainerID+" to", c.Network, byRole[c.Role].add(c))
}

func check(args *skel.CmdArgs) error {
	c, err := parse(args)
	if err == nil {
		err = notOwnNamespace(args)
	}
	if err != nil {
		return err
	}
	return explain("check container "+args.ContainerID+" in", c.Network, byRole[c.Role].check(c))
}

func del(args *skel.CmdArgs) error {
	n, err := conf.ParseTeardown(program(), args.StdinData)
	if err != nil {
		return err
	}
	return explain("delete container "+args.ContainerID+" from", n,
		byRole[n.Role].del(&call{Network: n, args: args}))
}

func collect(args *skel.CmdArgs) error {
	n, err := conf.ParseTeardown(program(), args.StdinData)
	if err != nil {
		return err
	}
	return explain("collect garbage of", n, byRole[n.Role].gc(n))
}

func status(args *skel.CmdArgs) error {
	n, err := conf.Parse(program(), args.StdinData, "")
	if err != nil {
		return err
	}
	return explain("status of", n, byRole[n.Role].status_(n))
}

// notOwnNamespace refuses the namespace that the plugin itself runs in, before anything is made there. The
// CNI library refuses it when all is done and the result is out.
func notOwnNamespace(args *skel.CmdArgs) error {
	if override := strings.ToUpper(args.NetnsOverride); override == "TRUE" || override == "1" {
		return nil
	}

	own, err := isOwnNamespace(args.Netns)
	switch {
	case err != nil:
		return types.NewError(types.ErrInvalidNetNS, "CNI_NETNS cannot be looked at", err.Error())
	case own:
		return types.NewError(types.ErrInvalidNetNS,
			"CNI_NETNS is the network namespace of the plugin itself", args.Netns)
	}

	return nil
}

func isOwnNamespace(path string) (bool, error) {
	wanted, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	own, err := os.Stat("/proc/self/ns/net")
	return err == nil && os.SameFile(own, wanted), err
}
