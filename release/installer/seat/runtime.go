package seat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/retry"

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
	return r.exchange(ctx, said.to(criEndpoint), func(ctx context.Context) error {
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
	return r.exchange(ctx, was.Said, func(ctx context.Context) error {
		return r.clear(ctx, ours, dead)
	})
}

// revive has trivet-cri answer, which may need a start. The error is why it does not.
func (r Runtime) revive(ctx context.Context, ours pods.Runtime) error {
	if r.answers(ctx, ours, min(deadLimit, r.startLimit())) == nil {
		return nil
	}
	r.Log.Warn("trivet-cri does not answer and is started again")
	if err := r.Units.RestartSoon(ctx, criUnit); err != nil {
		return err
	}
	return r.answers(ctx, ours, r.startLimit())
}

// answers waits until a runtime serves.
func (r Runtime) answers(ctx context.Context, who pods.Runtime, limit time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return who.Serve(limited)
}

// exchange has the agent work with another runtime: the node is without an agent meanwhile.
// clear takes the pods of the runtime before away.
func (r Runtime) exchange(
	ctx context.Context,
	say endpoints,
	clear func(context.Context) error,
) (o swap.Outage, err error) {
	agent, err := r.agent(ctx)
	if err != nil {
		return o, err
	}
	changes, err := say.changes(r.Root)
	if err != nil {
		return o, err
	}

	o.Stopped = time.Now()
	if err := r.Units.Stop(ctx, agent); err != nil {
		return o, err
	}
	if err := clear(ctx); err != nil {
		return o, err
	}
	for _, c := range changes {
		if err := c.write(); err != nil {
			return o, err
		}
	}

	o.Started = time.Now()
	return o, r.Units.StartSoon(ctx, agent)
}

// empty takes all pods away from a runtime. A sandbox that does not go is no reason to stop: no container of it
// runs.
func (r Runtime) empty(ctx context.Context, from pods.Runtime) error {
	limited, cancel := context.WithTimeout(ctx, emptyLimit)
	defer cancel()
	left := from.RemoveAll(limited, stopGrace)

	glance, cancel := context.WithTimeout(ctx, deadLimit)
	defer cancel()
	running, err := from.Running(glance)
	switch {
	case err != nil:
		return errors.Join(left, err)
	case len(running) > 0:
		return errors.Join(left, fmt.Errorf("at %s %d containers run, of them %s",
			from.Endpoint, len(running), running[0]))
	case left != nil:
		r.Log.Warn("sandboxes are left in a runtime", "endpoint", from.Endpoint, "err", left)
	}
	return nil
}

// clear is empty for the runtime that is given up: what it cannot end, or is dead to end, is killed.
func (r Runtime) clear(ctx context.Context, from pods.Runtime, dead error) error {
	why := dead
	if why == nil {
		why = r.empty(ctx, from)
	}
	if why == nil {
		return nil
	}

	r.Log.Warn("the processes of all pods are killed", "err", why)
	limited, cancel := context.WithTimeout(ctx, r.startLimit())
	defer cancel()
	if err := r.Pods.Kill(limited); err != nil {
		return errors.Join(why, err)
	}
	return nil
}

const (
	// deadLimit is after how long a runtime that is asked for its pods is taken for one that needs a start.
	deadLimit = 5 * time.Second

	// emptyLimit bounds how long all pods take to go.
	emptyLimit = time.Minute
)

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
	if err := r.checkFlags(ctx, was); err != nil {
		return was, err
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

// checkFlags refuses an agent that is told its runtime by a flag from a place that is not known here.
func (r Runtime) checkFlags(ctx context.Context, was before) error {
	agent, err := r.agent(ctx)
	if err != nil {
		return err
	}
	arguments, err := r.Units.Arguments(ctx, agent)
	if err != nil {
		return err
	}

	match := endpointFlag.FindStringSubmatch(strings.Join(arguments, " "))
	if match != nil && match[2] != was.Endpoint {
		return fmt.Errorf("%s has the flag %s, which is in none of %s, %s and %s",
			agent, match[0], kubeadmFlags, extraFlags, extraFlagsRPM)
	}
	return nil
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

// serve has trivet-cri run as it is on disk.
func (r Runtime) serve(ctx context.Context) error {
	if err := r.Units.Reload(ctx); err != nil {
		return err
	}
	if err := r.Units.Enable(ctx, criUnit); err != nil {
		return err
	}

	if err := r.renew(ctx); err != nil {
		return err
	}
	return r.answers(ctx, r.at(criEndpoint), r.startLimit())
}

// running is what a process of trivet-cri was started with.
type running struct {
	Process int    `json:"process"`
	Sum     string `json:"sum"`
}

const runningCRI = "trivet-cri"

// renew starts trivet-cri again if its process does not run with the program, the unit and the configuration
// that are on disk. The one before may answer until it ends: it waits for the next.
func (r Runtime) renew(ctx context.Context) error {
	store, err := memory[running](r.Host)
	if err != nil {
		return err
	}
	last, err := store.Get(runningCRI)
	if err != nil && !isMissing(err) {
		return err
	}
	sum, err := r.sum(criProgram, criUnitPath, criConfig)
	if err != nil {
		return err
	}

	before, err := r.Units.Process(ctx, criUnit)
	if err != nil {
		return err
	}
	current, err := r.current(ctx, criUnit, criProgram)
	if err != nil {
		return err
	}
	if before != 0 && current && last == (running{Process: before, Sum: sum}) {
		return nil
	}

	if err := r.Units.RestartSoon(ctx, criUnit); err != nil {
		return err
	}
	now, err := r.next(ctx, before)
	if err != nil {
		return err
	}
	return store.Put(runningCRI, running{Process: now, Sum: sum})
}

// next waits for the process of trivet-cri that comes after another one.
func (r Runtime) next(ctx context.Context, before int) (process int, err error) {
	limited, cancel := context.WithTimeout(ctx, r.startLimit())
	defer cancel()
	pauses := retry.Backoff{First: 20 * time.Millisecond, Max: 500 * time.Millisecond}
	err = retry.Until(limited, pauses, func(ctx context.Context) error {
		if process, err = r.Units.Process(ctx, criUnit); err != nil {
			return err
		}
		current, err := r.current(ctx, criUnit, criProgram)
		if err != nil {
			return err
		}
		if process == 0 || process == before || !current {
			return fmt.Errorf("%s has not started with %s", criUnit, criProgram)
		}
		return nil
	})
	return process, err
}

// Check returns the process that has the seat; zero: it does not run.
func (r Runtime) Check(ctx context.Context, in swap.State) (process int, err error) {
	if in == swap.Out {
		was, err := r.recall()
		if err != nil {
			return 0, err
		}
		return r.Units.Process(ctx, was.Unit)
	}

	current, err := r.current(ctx, criUnit, criProgram)
	if err != nil {
		return 0, err
	}
	if !current {
		return 0, fmt.Errorf("%s does not run %s", criUnit, criProgram)
	}
	return r.Units.Process(ctx, criUnit)
}

// serveAgain has the runtime run that was there.
func (r Runtime) serveAgain(ctx context.Context, was before) error {
	if was.Enabled {
		if err := r.Units.Enable(ctx, was.Unit); err != nil {
			return err
		}
	}
	if err := r.Units.Start(ctx, was.Unit); err != nil {
		return err
	}

	return r.answers(ctx, r.at(was.Endpoint), r.startLimit())
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
	if err := r.forgetAgent(); err != nil {
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
	return errors.Join(r.Units.Disable(ctx, was.Unit), r.Units.Stop(ctx, was.Unit))
}

// takeAway removes trivet-cri, its monitor, and what they keep.
func (r Runtime) takeAway(ctx context.Context) error {
	if err := r.unused(ctx); err != nil {
		return err
	}
	exists, err := r.Units.Exists(ctx, criUnit)
	if err != nil {
		return err
	}
	if exists {
		if err := errors.Join(r.Units.Disable(ctx, criUnit), r.Units.Stop(ctx, criUnit)); err != nil {
			return err
		}
		r.shutdown(ctx)
	}

	err = r.restore(crictlConfig, ctrLink, criConfig, criUnitPath, criProgram, monitorPath)
	if err := errors.Join(err, r.Units.Reload(ctx)); err != nil {
		return err
	}

	// Others may have something there.
	os.Remove(r.Root + filepath.Dir(criConfig))
	err = r.removeAll("/var/lib/trivet/cri", "/run/trivet/cri*", "/run/trivet/monitor*",
		"/run/trivet/metrics/trivet-cri.sock")
	if err != nil {
		return err
	}

	store, err := memory[before](r.Host)
	if err != nil {
		return err
	}
	return errors.Join(store.Delete(runningCRI), store.Delete(beforeRuntime))
}

// unused refuses to take trivet-cri away, and what it knows of its containers, while one of them lives.
func (r Runtime) unused(ctx context.Context) error {
	glance, cancel := context.WithTimeout(ctx, deadLimit)
	defer cancel()
	if ids, err := r.at(criEndpoint).Running(glance); err == nil && len(ids) > 0 {
		return fmt.Errorf("trivet-cri has %d containers that run, of them %s", len(ids), ids[0])
	}

	// It may be dead, or may have lost them.
	pids, err := r.Pods.Using("/var/lib/trivet/cri")
	if err == nil && len(pids) > 0 {
		err = fmt.Errorf("%d processes are in containers of trivet-cri, of them %d", len(pids), pids[0])
	}
	return err
}

// shutdown ends trivet-monitor, which lives on when its service is stopped. It is in the service's group.
func (r Runtime) shutdown(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, r.startLimit())
	defer cancel()
	out, err := exec.CommandContext(limited, r.Root+criProgram, "--shutdown").CombinedOutput()
	if err != nil {
		r.Log.Warn("trivet-monitor is killed", "err", err, "output", strings.TrimSpace(string(out)))
		if err := r.Units.Kill(ctx, criUnit); err != nil {
			r.Log.Warn("cannot kill what is left of trivet-cri", "err", err)
		}
	}
}
