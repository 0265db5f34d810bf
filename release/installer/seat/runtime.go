package seat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/trivet-node/trivet/release/installer/carry"
	"github.com/trivet-node/trivet/release/installer/pods"
	"github.com/trivet-node/trivet/release/installer/swap"
)

// Runtime is the seat of the container runtime. When it changes hands, the pods of the node are made again:
// no runtime knows another one's containers.
type Runtime struct{ Host }

// Names of trivet-cri on a machine.
const (
	criUnit       = "trivet-cri.service"
	criProgram    = "/usr/local/bin/trivet-cri"
	monitorPath   = "/usr/local/bin/trivet-monitor"
	criUnitPath   = "/etc/systemd/system/trivet-cri.service"
	criConfig     = "/etc/trivet/cri.toml"
	criStore      = "/var/lib/trivet/cri"
	criEndpoint   = "unix:///run/trivet/cri.sock"
	crictlConfig  = "/etc/crictl.yaml"
	ctrLink       = "/usr/local/sbin/ctr"
	kindDirectory = "/kind"
)

var criFiles = []installed{
	{"trivet-monitor", monitorPath, 0o755},
	{"trivet-cri", criProgram, 0o755},
	{"trivet-cri.service", criUnitPath, 0o644},
}

// before is the runtime that the node had.
type before struct {
	// Endpoint and Unit are its socket and its service.
	Endpoint string `json:"endpoint"`
	Unit     string `json:"unit"`

	// Enabled says whether it started with the machine.
	Enabled bool `json:"enabled"`

	// Said is which files named it.
	Said endpoints `json:"said"`
}

const beforeRuntime = "runtime"

// Arrange gives the seat to trivet-cri of a set of files, or back to the runtime that was there.
func (r Runtime) Arrange(ctx context.Context, to swap.State, images []string) (swap.Outage, error) {
	arrange := r.enter
	if to == swap.Out {
		arrange = r.leave
	}

	outage, err := arrange(ctx, to, images)
	if err != nil && !isKilled(ctx) {
		// It may be a while until the next try: with the runtime that its configuration names.
		err = errors.Join(err, r.resumeAgent(context.WithoutCancel(ctx)))
	}
	return outage, err
}

// enter gives the seat to trivet-cri. Until the agent is stopped, the node works as before.
func (r Runtime) enter(ctx context.Context, state swap.State, images []string) (swap.Outage, error) {
	was, err := r.remember(ctx)
	if err != nil {
		return swap.Outage{}, err
	}
	if err := r.keepAgent(ctx); err != nil {
		return swap.Outage{}, err
	}

	if err := r.install(state, criFiles); err != nil {
		return swap.Outage{}, err
	}
	if err := r.configure(state); err != nil {
		return swap.Outage{}, err
	}
	if err := r.serve(ctx); err != nil {
		return swap.Outage{}, err
	}

	said, err := readEndpoints(r.Root)
	if err != nil || said.all(criEndpoint) {
		// The next version of trivet-cri, or a call before that was cut off. Pods run on.
		return swap.Outage{}, errors.Join(err, r.startAgent(ctx))
	}

	// One that does not say what it has would keep it running beside what the agent makes again.
	theirs, ours := r.at(was.Endpoint), r.at(criEndpoint)
	if err := r.answers(ctx, theirs, r.startLimit()); err != nil {
		return swap.Outage{}, err
	}
	r.carrier(theirs, ours).Bring(ctx, images)
	return r.exchange(ctx, said.ours(), func(ctx context.Context) error {
		return r.empty(ctx, theirs)
	})
}

// leave gives the seat back.
func (r Runtime) leave(ctx context.Context, _ swap.State, images []string) (swap.Outage, error) {
	was, err := r.recall()
	if err != nil || was.Endpoint == "" {
		// It never came as far as to change anything.
		return swap.Outage{}, err
	}
	if err := r.keepAgent(ctx); err != nil {
		return swap.Outage{}, err
	}

	if err := r.serveAgain(ctx, was); err != nil {
		return swap.Outage{}, err
	}

	said, err := readEndpoints(r.Root)
	if err != nil || !said.names(criEndpoint) {
		return swap.Outage{}, errors.Join(err, r.startAgent(ctx))
	}

	theirs, ours := r.at(was.Endpoint), r.at(criEndpoint)
	dead := r.revive(ctx, ours)
	if dead == nil {
		r.carrier(ours, theirs).Bring(ctx, images)
	}
	return r.exchange(ctx, was.Said.back(said, was.Endpoint), func(ctx context.Context) error {
		return r.clear(ctx, ours, dead)
	})
}

// exchange has the agent work with another runtime: the node is without an agent meanwhile.
// empty takes the pods of the runtime before away.
func (r Runtime) exchange(
	ctx context.Context,
	say endpoints,
	empty func(context.Context) error,
) (o swap.Outage, err error) {
	agent, err := r.agent(ctx)
	if err != nil {
		return o, err
	}
	changes, err := say.changes(r.Root)
	if err != nil {
		return o, err
	}

	return r.restartAgent(ctx, agent, func(ctx context.Context) error {
		if err := empty(ctx); err != nil {
			return err
		}
		for _, c := range changes {
			if err := c.write(); err != nil {
				return err
			}
		}
		return nil
	})
}

// remember finds out what the node has, before anything is changed.
func (r Runtime) remember(ctx context.Context) (before, error) {
	was, err := r.recall()
	if err != nil || was.Endpoint != "" {
		return was, err
	}

	if was.Said, err = readEndpoints(r.Root); err != nil {
		return was, err
	}
	if was.Endpoint = was.Said.used(); was.Endpoint == criEndpoint {
		return was, errors.New("trivet-cri is the runtime of this node already, not by this installer")
	}
	if err := r.checkAgent(ctx, was.Said); err != nil {
		return was, err
	}
	active, err := r.Units.Active(ctx, criUnit)
	if err != nil {
		return was, err
	}
	if active {
		// Its images would go with it in the end.
		return was, fmt.Errorf("%s runs already, not by this installer", criUnit)
	}

	pid, err := r.at(was.Endpoint).Process(ctx)
	if err != nil {
		return was, fmt.Errorf("runtime at %s: %w", was.Endpoint, err)
	}
	if was.Unit, err = r.Units.Of(pid); err != nil {
		return was, err
	}
	if was.Unit == "" {
		return was, fmt.Errorf("runtime at %s: process %d is not of a service", was.Endpoint, pid)
	}
	if was.Enabled, err = r.Units.Enabled(ctx, was.Unit); err != nil {
		return was, err
	}

	store, err := memory[before](r.Host)
	if err != nil {
		return was, err
	}
	return was, store.Put(beforeRuntime, was)
}

// recall is what the node had; zero: it has not been changed.
func (r Runtime) recall() (was before, err error) {
	store, err := memory[before](r.Host)
	if err != nil {
		return was, err
	}
	if was, err = store.Get(beforeRuntime); isMissing(err) {
		return before{}, nil
	}
	return was, err
}

// configure writes what trivet-cri and its clients read, as far as the administrator has not.
func (r Runtime) configure(state swap.State) error {
	originals, err := r.originals()
	if err != nil {
		return err
	}

	config, err := os.ReadFile(r.payload(state, "cri.toml"))
	if err != nil {
		return err
	}
	if err := originals.Create(r.Root+criConfig, config, 0o644); err != nil {
		return err
	}

	// kind load calls ctr in its nodes.
	if _, err := os.Stat(r.Root + kindDirectory); err == nil {
		if err := originals.Link(r.Root+ctrLink, criProgram); err != nil {
			return err
		}
	}
	return nil
}

// at is the runtime at an endpoint.
func (r Runtime) at(endpoint string) pods.Runtime {
	return pods.Runtime{Endpoint: "unix://" + r.Root + strings.TrimPrefix(endpoint, "unix://")}
}

func (r Runtime) carrier(from, to pods.Runtime) carry.Carrier {
	return carry.Carrier{
		From:    from,
		To:      to,
		Ours:    r.at(criEndpoint).Endpoint,
		Program: r.Root + criProgram,
		Root:    r.Root,
		Log:     r.Log,
	}
}

// Settle ends the runtime that does not have the seat. With trivet-cri goes all that it has brought.
func (r Runtime) Settle(ctx context.Context, in swap.State) error {
	if err := errors.Join(r.forgetAgent(), r.sweep()); err != nil {
		return err
	}
	was, err := r.recall()
	if err != nil || was.Endpoint == "" {
		return err
	}
	if in == swap.Out {
		return r.takeAway(ctx)
	}

	originals, err := r.originals()
	if err != nil {
		return err
	}
	config := "runtime-endpoint: " + criEndpoint + "\n"
	if err := originals.Offer(r.Root+crictlConfig, []byte(config), 0o644); err != nil {
		return err
	}

	users, err := r.Units.Users(ctx, was.Unit)
	if err != nil || len(users) > 0 {
		r.Log.Info("the runtime before is left to run", "unit", was.Unit, "users", users)
		return err
	}
	if was.Enabled {
		// Of a unit that is not, this would take links away that nothing brings back.
		if err := r.Units.Disable(ctx, was.Unit); err != nil {
			return err
		}
	}
	return r.Units.Stop(ctx, was.Unit)
}
