// Package call is one call of a plugin by a runtime, and the result that answers it: what is the same for all
// plugins. https://www.cni.dev/docs/spec/ version 1.1, sections 2 and 5.
package call

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/document"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/internal/steplog"
)

// Call is one operation as the runtime asks for it.
type Call struct {
	conf.Head
	// Owner is the attachment: container and name of its interface. Zero in GC and STATUS.
	Owner ipam.Owner
	// Netns is the path of the container's network namespace. DEL may have none.
	Netns string
	// AnyNetns lets Netns be that of the plugin itself (CNI_NETNS_OVERRIDE).
	AnyNetns bool
	// Args is CNI_ARGS.
	Args string
	// Stdin is the configuration. Each plugin reads its own keys from it.
	Stdin []byte
	// Out takes the result.
	Out io.Writer
	// Previous is the result of the plugins before, or in CHECK that of ADD; nil when the runtime sent none.
	// DEL does not read it.
	Previous *types100.Result
	// Steps takes how long the steps of the call take; nil when the runtime does not ask for it.
	Steps *steplog.Log
}

// New returns the call that a request asks for, whose head is h.
func New(h conf.Head, r Request) *Call {
	return &Call{
		Head:     h,
		Owner:    ipam.Owner{ContainerID: r.ContainerID, IfName: r.IfName},
		Netns:    r.Netns,
		AnyNetns: r.AnyNetns,
		Args:     r.Args,
		Stdin:    r.Stdin,
		Out:      os.Stdout,
		Steps:    steplog.FromEnvironment(),
	}
}

// IsPod reports whether the container is of a pod of Kubernetes, which its runtimes name in CNI_ARGS.
func (c *Call) IsPod() bool {
	// What else is there, or is not known, is for those that read it.
	args, _ := conf.ParseArgs(c.Args)
	return args.Pod.Namespace != ""
}

// ReadPrevious reads prevResult into Previous.
func (c *Call) ReadPrevious() error {
	if c.PrevResult == nil {
		return nil
	}

	previous, err := c.versionedPrevious()
	if err != nil {
		return fmt.Errorf("%w: prevResult: %w", conf.ErrDecode, err)
	}

	if c.Previous, err = ParseResult(c.CNIVersion, previous); err != nil {
		return fmt.Errorf("%w: prevResult: %w", conf.ErrDecode, err)
	}
	return nil
}

// ParseResult reads a result of a version. One that has null in a list is an error: CNI's library, and who
// uses what it returns, takes it for an interface, an address or a route.
func ParseResult(version string, data []byte) (*types100.Result, error) {
	o, err := document.Parse(data)
	if err != nil {
		return nil, err
	}
	if err := refuseNulls(o); err != nil {
		return nil, err
	}

	result, err := create.Create(version, data)
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(result)
}

// refuseNulls returns an error that names the first null in the lists of a result. Until version 0.2, routes
// are in ip4 and ip6. What has another type is for CNI's library to refuse.
func refuseNulls(o document.Object) error {
	for _, list := range []struct {
		of        document.Object
		path, key string
	}{
		{of: o, key: "interfaces"},
		{of: o, key: "ips"},
		{of: o, key: "routes"},
		{of: o.Object("ip4"), path: "ip4.", key: "routes"},
		{of: o.Object("ip6"), path: "ip6.", key: "routes"},
	} {
		var elements []json.RawMessage
		list.of.Read(list.key, &elements)
		for i, raw := range elements {
			if string(raw) == "null" {
				return fmt.Errorf("%s%s[%d] is null", list.path, list.key, i)
			}
		}
	}
	return nil
}

// versionedPrevious returns prevResult with a version: results before 1.0 may have none, and are of that of
// the configuration.
func (c *Call) versionedPrevious() ([]byte, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(c.PrevResult, &keys); err != nil {
		return nil, err
	}
	if _, ok := keys["cniVersion"]; ok {
		return c.PrevResult, nil
	}

	version, err := json.Marshal(c.CNIVersion)
	if err != nil {
		return nil, err
	}

	keys["cniVersion"] = version
	return json.Marshal(keys)
}

// HasNetns reports whether the container's namespace is still there for DEL: one that does not exist any
// more has no interface, and ADD refuses that of the plugin itself.
func (c *Call) HasNetns() bool {
	own, err := c.InOwnNamespace()
	return err == nil && (!own || c.AnyNetns)
}

// InOwnNamespace reports whether Netns is the network namespace that the plugin itself runs in.
func (c *Call) InOwnNamespace() (bool, error) {
	wanted, err := os.Stat(c.Netns)
	if err != nil {
		return false, err
	}
	own, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return false, err
	}
	return os.SameFile(own, wanted), nil
}
