package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/trivet-node/trivet/e2e/lan"
	"github.com/trivet-node/trivet/e2e/machine"
	"golang.org/x/sys/unix"
)

// Daemon starts, stops (SIGTERM, after 10 s SIGKILL) or kills (SIGKILL) a daemon of a machine. A daemon is
// started as it was at first.
func (c *Cluster) Daemon(do, machineName, daemon string) error {
	m := c.Machine(machineName)
	switch do {
	case "stop":
		return m.Stop(daemon, 10*time.Second)
	case "kill":
		return c.kill(m, daemon)
	}

	states, err := m.List()
	if err != nil {
		return err
	}

	for _, s := range states {
		if s.Name == daemon {
			d := machine.Daemon{Name: s.Name, Argv: s.Argv}
			if daemon == "containerd" {
				d.Env = c.criServer(Node{Seats: Reference}).Env
			}

			return m.Start(d)
		}
	}

	return fmt.Errorf("machine %s: no daemon is called %q", machineName, daemon)
}

// kill ends a daemon, or a program that a daemon has started (trivet-monitor), with SIGKILL.
func (c *Cluster) kill(m *machine.Machine, name string) error {
	states, err := m.List()
	if err != nil {
		return err
	}

	for _, s := range states {
		if s.Name == name {
			return m.Kill(name)
		}
	}

	pids := m.Find(name)
	if len(pids) == 0 {
		return fmt.Errorf("machine %s: nothing that is called %q runs", m.Name, name)
	}

	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill %s of machine %s: %w", name, m.Name, err)
		}
	}

	return nil
}

// CopyLog copies the log of a daemon.
func (c *Cluster) CopyLog(out io.Writer, machineName, daemon string) error {
	f, err := os.Open(filepath.Join(c.Machine(machineName).Dir, "log", filepath.Base(daemon)+".log"))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(out, f)
	return err
}

// Cable pulls or plugs the network cable of a node.
func (c *Cluster) Cable(node string, plugged bool) error {
	if plugged {
		return lan.Mend(c.controlPlane().Pid(), node)
	}
	return lan.Cut(c.controlPlane().Pid(), node)
}

// Status prints the machines, their daemons, and what memory these hold.
func (c *Cluster) Status(out io.Writer) error {
	machines, err := os.ReadDir(c.path("machines"))
	if err != nil {
		return fmt.Errorf("no cluster is up: %w", err)
	}

	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "MACHINE\tDAEMON\tHOST PID\tRSS KiB\tSTATE")
	for _, e := range machines {
		m := c.Machine(e.Name())
		if m.Pid() == 0 {
			fmt.Fprintf(w, "%s\t\t\t\tdown\n", m.Name)
			continue
		}

		states, err := m.List()
		if err != nil {
			return err
		}

		for _, s := range states {
			state := "running"
			if s.Pid == 0 {
				state = s.Exit
			}

			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", m.Name, s.Name, s.HostPid, residentKiB(s.HostPid), state)
		}
	}

	return w.Flush()
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
