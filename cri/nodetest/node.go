package nodetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/testenv"
)

// Node is a trivet-cri with its monitor, and a Client of it. All of it is in its directory: run is its state,
// lib its root directory.
type Node struct {
	Client

	// Config is the content of the configuration file of the next Start.
	Config string

	// Cmd is the server's process.
	Cmd *exec.Cmd

	conns []io.Closer
}

// New starts a node. At the end of the test its pods are removed and its processes ended; it is an error if
// one is left.
func New(tb testing.TB) *Node {
	tb.Helper()
	testenv.Root(tb)
	testenv.Program(tb, "crun", "crun")
	n := &Node{Client: Client{
		Dir:   testenv.ShortDir(tb),
		Image: PushImage(tb, nil),
		tb:    tb,
	}}

	// The root of a pod with a user namespace passes through.
	if err := os.Chmod(n.Dir, 0o711); err != nil {
		tb.Fatal(err)
	}

	link(tb, n.Dir+"/bin")
	n.Start()
	tb.Cleanup(n.end)
	return n
}

// Program returns a command of trivet-cri with the node's flags and further ones.
func (n *Node) Program(more ...string) *exec.Cmd {
	return exec.Command(n.Dir+"/bin/trivet-cri", append([]string{
		"--socket=" + n.Dir + "/cri.sock",
		"--state-dir=" + n.Dir + "/run",
		"--root-dir=" + n.Dir + "/lib",
		"--monitor-socket=" + n.Dir + "/m.sock",
		"--cni-conf-dir=" + n.Dir + "/net.d",
		"--cni-cache-dir=" + n.Dir + "/cni",
		"--cni-bin-dir=" + n.Dir + "/plugins",
		"--certs-dir=" + n.Dir + "/certs",
		"--config=" + n.Dir + "/cri.toml",
	}, more...)...)
}

// Start starts the server, and waits until it answers.
func (n *Node) Start() {
	n.tb.Helper()
	if err := os.WriteFile(n.Dir+"/cri.toml", []byte(n.Config), 0o644); err != nil {
		n.tb.Fatal(err)
	}

	n.Cmd = n.Program()
	n.Cmd.Stdout = n.tb.Output()
	n.Cmd.Stderr = n.tb.Output()
	if err := n.Cmd.Start(); err != nil {
		n.tb.Fatal(err)
	}

	conn, err := socket.Dial(n.Dir + "/cri.sock")
	if err != nil {
		n.tb.Fatal(err)
	}

	n.conns = append(n.conns, conn)
	n.Pods = runtimeapi.NewRuntimeServiceClient(conn)
	n.Images = runtimeapi.NewImageServiceClient(conn)
	Eventually(n.tb, func() bool {
		_, err := n.Pods.Version(n.tb.Context(), &runtimeapi.VersionRequest{})
		return err == nil
	})
}

// Kill ends the server without warning. One that has ended is left as it is.
func (n *Node) Kill() { n.signal(unix.SIGKILL) }

// signal sends the server a signal and waits for its end, which Wait reports as an error.
func (n *Node) signal(s unix.Signal) {
	_ = n.Cmd.Process.Signal(s)
	_ = n.Cmd.Wait()
}

// end removes all pods and checks that no process of the node is left but the monitor, which it ends.
func (n *Node) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	n.RemoveAll(ctx)
	for _, c := range n.conns {
		c.Close()
	}

	n.signal(unix.SIGTERM)
	n.EndMonitor()

	groups, err := cgroup.Open()
	if err != nil {
		n.tb.Fatal(err)
	}
	if err := groups.Remove(ctx, n.Group()); err != nil {
		n.tb.Errorf("processes are left: %v", err)
	}
}

// Monitors returns the processes of the node's trivet-monitor.
func (n *Node) Monitors() (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		line, _ := os.ReadFile(p)
		pid, err := strconv.Atoi(strings.Split(p, "/")[2])
		if err == nil && bytes.HasPrefix(line, []byte(n.Dir+"/bin/trivet-monitor")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// EndMonitor asks the monitor to end, and waits for it.
func (n *Node) EndMonitor() {
	for _, pid := range n.Monitors() {
		unix.Kill(pid, unix.SIGTERM)
		Eventually(n.tb, func() bool {
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			return err != nil || len(line) == 0
		})
	}
}

// KillMonitor ends the monitor without warning. What it was asked for just now may be half done.
func (n *Node) KillMonitor() {
	for _, pid := range n.Monitors() {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// Crun runs crun with the state of the node's containers, as the server does.
func (n *Node) Crun(args ...string) {
	n.tb.Helper()
	args = append([]string{"--root", n.Dir + "/run/oci/crun"}, args...)
	if out, err := exec.Command("crun", args...).CombinedOutput(); err != nil {
		n.tb.Fatalf("crun %s: %v: %s", args, err, out)
	}
}

// Leftovers returns the mounts, records, network leases, layers and cgroups of pods that do not exist any
// more. The node must have no pod.
func (n *Node) Leftovers() (left []string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if point := strings.Fields(line)[4]; strings.HasPrefix(point, n.Dir+"/") {
			left = append(left, "mount "+point)
		}
	}

	for _, pattern := range []string{
		"leases/*", "cni/results/*",
		"run/sandboxes/*", "run/sandboxes/records/*",
		"run/containers/*", "run/containers/records/*",
		"run/monitor/containers/*",
		"run/rootfs/records/*", "run/rootfs/mounts/*", "run/mapped/*",
		"run/oci/*/*",
		"lib/rootfs/containers/*", "lib/sandboxes/*",
	} {
		found, _ := filepath.Glob(n.Dir + "/" + pattern)
		for _, f := range found {
			if filepath.Base(f) != "records" {
				left = append(left, f)
			}
		}
	}

	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		found, _ := filepath.Glob(pattern + n.Group() + "/*/cgroup.procs")
		left = append(left, slices.DeleteFunc(found, isPlainFile)...)
	}

	return left
}

// isPlainFile reports whether a file below /sys/fs/cgroup is none of a control group. crun makes such files
// where the hierarchy of hugetlb is mounted in other namespaces only, as by a cluster on the same machine.
func isPlainFile(path string) bool {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	return err == nil && fs.Type == unix.TMPFS_MAGIC
}
