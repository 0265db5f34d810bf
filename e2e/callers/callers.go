// Package callers has the programs that call CNI plugins use trivet-cni under the names of upstream's
// plugins: each makes networks from its own configuration, containers in them, and takes all of it away
// again. A caller runs on a machine of its own (e2e/machine), which has its files and its network.
//
// What is particular to a caller is a script with the same functions in each: prepare (files), ready (its
// daemon answers), version, load (images), networks (their names), network and unnetwork NETWORK, and for the
// network in the variable NETWORK run NAME [PORT], inside NAME COMMAND, check NAME, restart NAME [PORT] and
// remove NAME....
package callers

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/machine"
)

// caller is a program that calls plugins.
type caller struct {
	// name is that of its script.
	name string

	// needs are files below the directory of reference programs, or below podman's. The first is the caller.
	needs []string

	// module is that of its program, for callers that do not say their version.
	module string

	// daemon is a command line, its program below the directory of reference programs. It may be none.
	daemon []string

	// upgraded says that its daemon is killed and started again where others start a container again, which
	// keeps its network.
	upgraded bool

	// notByLoopback says that it publishes ports itself, and not on 127.0.0.1.
	notByLoopback bool
}

var all = []caller{
	{
		name:   "cnitool",
		needs:  []string{"callers/cnitool"},
		module: "github.com/containernetworking/cni",
	},
	{
		name:   "multus",
		needs:  []string{"callers/multus", "callers/cnitool"},
		module: "gopkg.in/k8snetworkplumbingwg/multus-cni.v4",
	},
	{name: "podman", needs: []string{"podman/bin/podman"}},
	{
		name:   "nerdctl",
		needs:  []string{"nerdctl", "containerd"},
		daemon: []string{"containerd"},
	},
	{
		name:     "containerd",
		needs:    []string{"containerd", "crictl"},
		daemon:   []string{"containerd", "--config=/etc/containerd.toml"},
		upgraded: true,
	},
	{
		name:     "crio",
		needs:    []string{"crio/crio", "crictl", "podman/bin/conmon"},
		daemon:   []string{"crio/crio", "--config=/etc/crio.conf"},
		upgraded: true,

		notByLoopback: true,
	},
}

// Names are those of all callers.
func Names() (names []string) {
	for _, c := range all {
		names = append(names, c.name)
	}
	return names
}

// Run has callers use the plugins.
type Run struct {
	// Plugin is the program trivet-cni.
	Plugin string

	// Programs is the directory of the reference programs, Images the layout of the set base.
	Programs, Images string

	// Work is a directory for all that is written. Packages of Debian's are kept there.
	Work string

	Out io.Writer
}

//go:embed scripts
var scripts embed.FS

// limit bounds one caller.
const limit = 3 * time.Minute

// Do runs the callers of these names, and returns an error unless all of them did what they should. One that
// is not there is skipped, unless all have to run. A name that no caller has is an error.
func (r Run) Do(ctx context.Context, names []string, must bool) error {
	for _, name := range names {
		if !slices.Contains(Names(), name) {
			return fmt.Errorf("no caller is called %q: there are %s", name, strings.Join(Names(), ", "))
		}
	}

	if err := r.prepare(ctx); err != nil {
		return err
	}

	var failures []error
	for _, c := range all {
		if !slices.Contains(names, c.name) {
			continue
		}

		if missing := r.missing(c); missing != "" {
			fmt.Fprintf(r.Out, "%-12s skipped: %s is not there\n", c.name, missing)
			if must {
				failures = append(failures, fmt.Errorf("%s: %s is not there", c.name, missing))
			}
			continue
		}

		if err := r.call(ctx, c); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", c.name, err))
		}
	}

	return errors.Join(failures...)
}

// missing is what a caller needs and is not there.
func (r Run) missing(c caller) string {
	for _, need := range c.needs {
		if _, err := os.Stat(r.find(need)); err != nil {
			return need
		}
	}
	return ""
}

// find returns the path of a program. Podman is where it was unpacked.
func (r Run) find(program string) string {
	if strings.HasPrefix(program, "podman/") {
		return filepath.Join(r.Work, program)
	}
	return filepath.Join(r.Programs, program)
}

// kept are the directories with images and containers: there is an overlay on /var, which does not carry
// those of containers.
var kept = []string{"/var/lib/containers", "/var/lib/containerd", "/var/lib/nerdctl"}

// call boots a machine for a caller and runs it there.
func (r Run) call(ctx context.Context, c caller) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()

	m := machine.At(filepath.Join(r.Work, "machine"))
	clean := func() error {
		return errors.Join(m.Halt(context.WithoutCancel(ctx)), os.RemoveAll(m.Dir))
	}
	if err := clean(); err != nil {
		return err
	}
	defer func() {
		// What a failure was about is in the logs.
		if err == nil {
			err = clean()
		} else {
			err = errors.Join(err, m.Halt(context.WithoutCancel(ctx)))
		}
	}()

	expose := map[string]string{}
	for _, path := range []string{r.Work, r.Programs, r.Plugin} {
		expose[path] = path
	}
	err = m.Boot(ctx, machine.Config{
		Name:   "callers",
		Group:  fmt.Sprintf("/trivet-callers-%d", os.Getpid()),
		Hosts:  "127.0.0.1 localhost\n",
		Keep:   kept,
		Expose: expose,
	})
	if err != nil {
		return err
	}

	h := &host{run: r, caller: c, machine: m}
	return h.play(ctx)
}
