package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/e2e/cluster/controlplane"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/e2e/pki"
	"github.com/trivet-node/trivet/internal/durable"
)

// stateDir is the state directory of a cluster, absolute.
type stateDir string

// What a cluster keeps in it. hostFile has the host as it was before the cluster came up, and outlives the
// cluster: it is compared with it. kubectlCache is where kubectl keeps what it has learned of the cluster; by
// itself, it fills the user's home with it.
const (
	planFile       = "cluster.json"
	hostFile       = "host.json"
	kubeconfigFile = "kubeconfig"
	kubectlCache   = "kubectl-cache"
	pkiDir         = "pki"
	machinesDir    = "machines"
)

// removable is what goes with the cluster.
var removable = []string{machinesDir, pkiDir, kubeconfigFile, kubectlCache, planFile}

func (d stateDir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

func (d stateDir) pki() pki.Dir { return pki.Dir(d.path(pkiDir)) }

func (d stateDir) machine(name string) *machine.Machine {
	return machine.At(d.path(machinesDir, name))
}

func (d stateDir) controlPlane() *machine.Machine { return d.machine(controlplane.Name) }

// machines are those that have a record, up or down, by name.
func (d stateDir) machines() ([]*machine.Machine, error) {
	entries, err := os.ReadDir(d.path(machinesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}

	machines := make([]*machine.Machine, len(entries))
	for i, e := range entries {
		machines[i] = d.machine(e.Name())
	}
	return machines, nil
}

func (d stateDir) nodeFiles(node string) nodeFiles {
	return nodeFiles(d.path(machinesDir, node, "keep"))
}

// groups is the cgroup above those of the machines. Clusters in different directories have different ones.
func (d stateDir) groups() string {
	h := fnv.New32a()
	h.Write([]byte(d))
	return fmt.Sprintf("/trivet-%x", h.Sum32())
}

// group is the cgroup of a machine.
func (d stateDir) group(name string) string { return d.groups() + "/" + name }

// plan reads the plan of the cluster that is up; fs.ErrNotExist when none is.
func (d stateDir) plan() (Plan, error) {
	var p Plan
	data, err := os.ReadFile(d.path(planFile))
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("%s: %w", d.path(planFile), err)
	}
	return p, nil
}

func (d stateDir) writePlan(p Plan) error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteVolatile(d.path(planFile), data, 0o644)
}
