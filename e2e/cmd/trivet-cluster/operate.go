package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/program"
)

// stopGrace is how long a daemon may take to end before it is killed.
const stopGrace = 10 * time.Second

func (s *session) stop() error { return s.Machine(s.args[0]).Stop(s.args[1], stopGrace) }

func (s *session) restart() error { return s.Machine(s.args[0]).Restart(s.args[1]) }

func (s *session) kill() error { return s.Machine(s.args[0]).KillProgram(s.args[1]) }

// logs prints the log of a daemon.
func (s *session) logs() error {
	f, err := os.Open(s.Machine(s.args[0]).LogFile(s.args[1]))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(s.Stdout, f)
	return err
}

// addOn installs or removes what a cluster can have beside its nodes.
func (s *session) addOn(ctx context.Context, verb, name string) error {
	if name != "metrics-server" {
		return &program.UsageError{Err: fmt.Errorf("%s what? Only metrics-server, not %q", verb, name)}
	}

	server := cluster.NewMetricsServer(s.Cluster)
	if verb == "install" {
		return server.Install(ctx)
	}
	return server.Remove(ctx)
}

// guest does what happens to the guest, but for what is done on it (exec).
func (s *session) guest(ctx context.Context, what string) error {
	guest := cluster.Guest{Cluster: s.Cluster}
	switch what {
	case "boot":
		return guest.Boot(ctx)
	case "network":
		return guest.StartNetwork()
	case "dismiss":
		return guest.Dismiss(ctx)
	}
	return &program.UsageError{Err: fmt.Errorf("guest %s? boot, network or dismiss", what)}
}

// exec runs a command inside a machine.
func (s *session) exec(ctx context.Context) error {
	cmd, err := s.Machine(s.args[0]).Command(ctx, s.args[1], s.args[2:]...)
	if err != nil {
		return err
	}
	cmd.Stdin = os.Stdin
	cmd.Stdout, cmd.Stderr = s.Stdout, s.Stderr
	return cmd.Run()
}

// status prints the machines, their daemons, and what memory these hold.
func (s *session) status() error {
	machines, err := s.Machines()
	if err != nil {
		return err
	}
	if len(machines) == 0 {
		return errors.New("no cluster is up")
	}

	w := tabwriter.NewWriter(s.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "MACHINE\tDAEMON\tHOST PID\tRSS KiB\tSTATE")
	for _, m := range machines {
		if m.Pid() == 0 {
			fmt.Fprintf(w, "%s\t\t\t\tdown\n", m.Name)
			continue
		}

		states, err := m.List()
		if err != nil {
			return err
		}

		printDaemons(w, m.Name, states)
	}

	return w.Flush()
}

func printDaemons(w io.Writer, name string, states []machine.State) {
	for _, d := range states {
		state, memory := "running", residentKiB(d.HostPid)
		if d.Pid == 0 {
			state, memory = d.Exit, "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", name, d.Name, d.HostPid, memory, state)
	}
}

func residentKiB(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.Fields(rest)[0]
		}
	}
	return "-"
}
