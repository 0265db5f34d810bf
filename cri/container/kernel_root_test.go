package container_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/nodetest"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
)

// withRuntimes runs a test on nodes with crun and with runc, where it is installed.
func withRuntimes(t *testing.T, test func(t *testing.T, n *nodetest.Node)) {
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) {
			testenv.Program(t, name, name)
			var n *nodetest.Node
			if driver.Systemd {
				// After the node has removed its pods: systemd waits for what is in a slice.
				t.Cleanup(func() { systemctl(t, "stop", parent(n)) })
			}

			n = nodetest.New(t)
			n.Kill()
			n.Config = "oci_runtime = \"" + name + "\"\n"
			if driver.Systemd {
				n.Config += "cgroup_driver = \"systemd\"\n"
			}

			n.Start()
			n.Pull()
			test(t, n)
		})
	}
}

func systemctl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("systemctl", args...).CombinedOutput(); err != nil {
		t.Errorf("systemctl %v: %v: %s", args, err, out)
	}
}

// kernel is what the kernel has of a container.
type kernel struct {
	t     *testing.T
	host  *cgroup.Host
	group string
}

func kernelOf(t *testing.T, n *nodetest.Node, id string) kernel {
	t.Helper()
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	// crun has a group of its own below a scope.
	group := driver.Dir(parent(n), id)
	if below := group + "/" + cgroup.CrunGroup; host.Exists(below) {
		group = below
	}

	return kernel{t, host, group}
}

// driver is systemd in a machine whose PID 1 it is.
var driver = cgroupdriver.Driver{Systemd: os.Getenv("TRIVET_SYSTEMD") != ""}

// parent returns the cgroup parent of pods.
func parent(n *nodetest.Node) string {
	if driver.Systemd {
		return strings.ReplaceAll(strings.Trim(n.Group(), "/"), "-", "_") + ".slice"
	}
	return n.Group()
}

// podOf makes a pod below the parent.
func podOf(n *nodetest.Node, name string) nodetest.Pod {
	return n.Sandbox(name, func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = parent(n) })
}

// file reads a file of the container's group: v1's name, or v2's.
func (k kernel) file(controller, v1, v2 string) string {
	k.t.Helper()
	name := v1
	if k.host.V2 {
		name = v2
	}
	data, err := os.ReadFile(filepath.Join(k.host.Dir(controller, k.group), name))
	if err != nil {
		k.t.Error(err)
	}
	return strings.TrimSpace(string(data))
}

// unlimited is what v1 shows of a limit of memory that there is not.
const unlimited = "9223372036854771712"

// limits returns the container's limits as on v1, -1 for one that it does not have: quota, period, memory.
func (k kernel) limits() [3]string {
	k.t.Helper()
	quota := k.file("cpu", "cpu.cfs_quota_us", "cpu.max")
	if !k.host.V2 {
		quota += " " + k.file("cpu", "cpu.cfs_period_us", "")
	}
	quota, period, _ := strings.Cut(quota, " ")

	memory := k.file("memory", "memory.limit_in_bytes", "memory.max")
	for _, limit := range []*string{&quota, &memory} {
		if *limit == "max" || *limit == unlimited {
			*limit = "-1"
		}
	}

	return [3]string{quota, period, memory}
}
