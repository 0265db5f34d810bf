package plugin

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/tally"
)

// operation is one verb of the protocol.
type operation struct {
	do func(network, *call.Call) error
	// since is the version of CNI that has the verb, "" for all of them.
	since string
	// before and after are what has to hold for a call beside what the plugin looks at.
	before, after func(*call.Call) error
}

var operations = map[string]operation{
	"ADD":    {do: network.Add, before: prepare},
	"CHECK":  {do: network.Check, before: prepare, since: "0.4.0"},
	"DEL":    {do: network.Del, after: refuseOwnNamespace},
	"GC":     {do: network.GC, since: "1.1.0"},
	"STATUS": {do: status, since: "1.1.0"},
}

// Main serves the call that a runtime makes by the environment and standard input, and returns the exit code.
// Without a call it prints about.
func Main(about string) int {
	if os.Getenv("CNI_COMMAND") == "" {
		fmt.Fprint(os.Stderr, introduce(programName(), about))
		return 0
	}

	err := dispatch()
	if err == nil {
		return 0
	}

	failure, ok := errors.AsType[*types.Error](err)
	if !ok {
		failure = types.NewError(types.ErrInternal, err.Error(), "")
	}
	if err := failure.Print(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return 1
}

// upstream is the version of upstream's plugins whose configurations the program serves.
const upstream = "v1.10.0"

// introduce is what the program says when there is no call, by whatever name. By upstream's names it begins
// as upstream's programs do: nerdctl reads there which policies firewall has.
func introduce(program, about string) string {
	if program != own {
		about = fmt.Sprintf("CNI %s plugin %s\n%s", program, upstream, about)
	}
	versions := strings.Join(Versions().SupportedVersions(), ", ")
	return fmt.Sprintf("%s\nCNI protocol versions supported: %s\n", about, versions)
}

// dispatch finds the operation that is asked for and the network that it is for. Its errors are CNI errors,
// in the words of CNI's library.
func dispatch() error {
	r, err := call.ReadRequest(os.Getenv, os.Stdin)
	if err != nil {
		return err
	}
	if r.Verb == "VERSION" {
		return Versions().Encode(os.Stdout)
	}

	h, err := conf.ReadHead(r.Stdin)
	switch {
	case err != nil:
		return types.NewError(types.ErrDecodingFailure, "error unmarshall network config: "+err.Error(), "")
	case h.Name == "":
		return types.NewError(types.ErrInvalidNetworkConfig, "missing network name", "")
	case !call.IsName(h.Name):
		const message = "invalid characters found in network name"
		return types.NewError(types.ErrInvalidNetworkConfig, message, h.Name)
	}

	o, ok := operations[r.Verb]
	if !ok {
		message := "unknown CNI_COMMAND: " + r.Verb
		return types.NewError(types.ErrInvalidEnvironmentVariables, message, "")
	}
	if err := o.checkVersion(r.Verb, h.CNIVersion); err != nil {
		return err
	}

	return o.run(h, r)
}

// checkVersion returns an error unless the version of a configuration has the verb and is one of the
// plugin's. Without one it is 0.1.0, as CNI's conventions say.
func (o operation) checkVersion(verb, wanted string) error {
	if wanted == "" {
		wanted = "0.1.0"
	}

	if o.since != "" {
		has, err := version.GreaterThanOrEqualTo(wanted, o.since)
		if err != nil {
			return types.NewError(types.ErrDecodingFailure, err.Error(), "")
		}
		if !has {
			message := "config version does not allow " + verb
			return types.NewError(types.ErrIncompatibleCNIVersion, message, "")
		}
	}

	supported := Versions().SupportedVersions()
	if !slices.Contains(supported, wanted) {
		incompatible := &version.ErrorIncompatible{Config: wanted, Supported: supported}
		const message = "incompatible CNI versions"
		return types.NewError(types.ErrIncompatibleCNIVersion, message, incompatible.Details())
	}

	return nil
}

// run serves a call, and counts it if it is for our own plugin. Its errors are CNI errors.
func (o operation) run(h conf.Head, r call.Request) error {
	began := time.Now()
	program := programName()
	err := o.serve(program, h, r)
	if program == own {
		tally.Add(tally.Path, r.Verb, codeOf(err), time.Since(began))
	}
	return err
}

func (o operation) serve(program string, h conf.Head, r call.Request) error {
	role, err := roleOf(program, h)
	what := describe(h, r, role)
	if err != nil {
		return cniError(what, err)
	}

	p := plugins[role]
	c := call.New(h, r)

	if o.before != nil {
		err = o.before(c)
	}
	if err == nil {
		err = o.do(p, c)
	}
	if err == nil && o.after != nil {
		err = o.after(c)
	}

	return cniError(what, err)
}

// describe names the call in errors.
func describe(h conf.Head, r call.Request, role string) string {
	what := fmt.Sprintf("%s of network %s (%s)", r.Verb, h.Name, role)
	if r.ContainerID != "" {
		what += ", container " + r.ContainerID
	}
	return what
}

// prepare reads prevResult, and refuses the namespace that the plugin itself runs in before anything is made
// there.
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
		return ownNamespaceError(c)
	}

	return nil
}

// refuseOwnNamespace returns an error for a call whose namespace is that of the plugin itself. DEL comes to
// it when it has taken apart what there was.
func refuseOwnNamespace(c *call.Call) error {
	if own, err := c.InOwnNamespace(); err == nil && own && !c.AnyNetns {
		return ownNamespaceError(c)
	}
	return nil
}

func ownNamespaceError(c *call.Call) error {
	return fmt.Errorf("%w: CNI_NETNS %s is that of the plugin itself", errNetns, c.Netns)
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
