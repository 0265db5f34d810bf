package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"

	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/retry"
)

// agent is the node agent of a node: its program is restarted with other settings.
type agent struct {
	client  kubernetes.Interface
	machine *machine.Machine
	node    string
	daemon  string

	// file is its configuration, and original what was in it before this program wrote it.
	file, original string
}

func newAgent(client kubernetes.Interface, c *cluster.Cluster, node cluster.Node) agent {
	m := c.Machine(node.Name)
	file := filepath.Join(m.Dir, "keep", "etc/trivet/kubelet.json")
	a := agent{
		client:   client,
		machine:  m,
		node:     node.Name,
		daemon:   "kubelet",
		file:     file,
		original: filepath.Join(m.Dir, "kubelet.json.original"),
	}
	if node.Agent == "trivet" {
		a.daemon = "trivet-node"
	}

	return a
}

const stopGrace = 10 * time.Second

// quick are settings for all cases: what a node recovers from is seen in seconds, and what pods have in their
// volumes is not as old as a kubelet has it by default.
var quick = settings{
	"volumeStatsAggPeriod":             "10s",
	"evictionPressureTransitionPeriod": "5s",
	"imageMinimumGCAge":                "1s",
}

// configure writes the agent's own settings with these in their place, and restarts the agent with them.
func (a agent) configure(ctx context.Context, s settings) error {
	all, err := a.own()
	if err != nil {
		return err
	}

	maps.Copy(all, quick)
	maps.Copy(all, s)
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}

	return a.restart(ctx, data, s)
}

// own are the settings with which the cluster came up.
func (a agent) own() (settings, error) {
	data, err := os.ReadFile(a.original)
	if err != nil {
		if data, err = os.ReadFile(a.file); err != nil {
			return nil, err
		}
		if err := os.WriteFile(a.original, data, 0o644); err != nil {
			return nil, err
		}
	}

	var own settings
	return own, json.Unmarshal(data, &own)
}

func (a agent) restore(ctx context.Context) error {
	data, err := os.ReadFile(a.original)
	if err != nil {
		return err
	}
	return a.restart(ctx, data, nil)
}

// restart returns when the agent says that it has the settings.
func (a agent) restart(ctx context.Context, config []byte, want settings) error {
	if err := a.machine.Stop(a.daemon, stopGrace); err != nil {
		return err
	}
	if err := os.WriteFile(a.file, config, 0o644); err != nil {
		return err
	}
	if err := a.machine.Restart(a.daemon); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not within %s", startLimit))
	defer cancel()

	var err error
	for range retry.Every(ctx, 200*time.Millisecond) {
		if err = a.has(ctx, want); err == nil {
			return nil
		}
	}

	return fmt.Errorf("restart %s with other settings: %w", a.daemon, err)
}

func (a agent) has(ctx context.Context, want settings) error {
	path := "/api/v1/nodes/" + a.node + "/proxy/configz"
	data, err := a.client.CoreV1().RESTClient().Get().AbsPath(path).DoRaw(ctx)
	if err != nil {
		return err
	}

	var shown struct {
		Config settings `json:"kubeletconfig"`
	}
	if err := json.Unmarshal(data, &shown); err != nil {
		return err
	}

	for key, value := range want {
		if !sameJSON(shown.Config[key], value) {
			return fmt.Errorf("its %s is %v, want %v", key, shown.Config[key], value)
		}
	}

	return nil
}

// free is what the node has now.
func (a agent) free(ctx context.Context) (free, error) {
	var f free
	for dir, s := range map[string]*space{"/var/lib/kubelet": &f.disk, "/var/lib/trivet/cri": &f.images} {
		var st unix.Statfs_t
		path := filepath.Join("/proc", strconv.Itoa(a.machine.Pid()), "root", dir)
		if err := unix.Statfs(path, &st); err != nil {
			return f, fmt.Errorf("statfs %s: %w", path, err)
		}

		s.bytes = int64(st.Bavail) * st.Bsize
		s.inodes = int64(st.Ffree)
	}

	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return f, err
	}

	f.memory = int64(info.Totalram) * int64(info.Unit)

	var err error
	f.pids, err = a.processesLeft(ctx)
	return f, err
}

// processesLeft is how many more processes the node may have. The kernel has a limit for each PID namespace,
// and one for all of them.
func (a agent) processesLeft(ctx context.Context) (int64, error) {
	const files = "/proc/sys/kernel/pid_max /proc/sys/kernel/threads-max /proc/loadavg"
	cmd, err := a.machine.Command(ctx, "cat", strings.Fields(files)...)
	if err != nil {
		return 0, err
	}

	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("cat %s: %w", files, err)
	}

	return parseProcesses(string(out))
}

// parseProcesses reads two limits and the line of /proc/loadavg, whose fourth field is RUNNING/ALL.
func parseProcesses(text string) (int64, error) {
	var perNamespace, all, running, now int64
	var load [3]float64
	_, err := fmt.Sscanf(text, "%d\n%d\n%f %f %f %d/%d",
		&perNamespace, &all, &load[0], &load[1], &load[2], &running, &now)
	if err != nil {
		return 0, fmt.Errorf("limits of processes in %q: %w", text, err)
	}
	return min(perNamespace, all) - now, nil
}
