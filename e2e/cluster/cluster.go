// Package cluster brings up a real Kubernetes cluster on one machine and takes it down again: etcd, API
// server, controller manager, scheduler, registry and CoreDNS on a machine of their own, and any number of
// nodes, each with the agent, CRI server and CNI plugin that was chosen for it. The machines are namespaces
// (package machine) on a LAN of theirs (package lan).
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/e2e/pki"
	"github.com/trivet-node/trivet/internal/durable"
)

// Addresses inside the cluster. They exist in its own namespaces only, so that two clusters do not meet.
const (
	lanBits     = 16
	apiPort     = 6443
	registry    = "10.99.0.1:5000"
	podCIDR     = "10.244.0.0/16"
	serviceCIDR = "10.96.0.0/16"
	apiService  = "10.96.0.1"
	dnsService  = "10.96.0.10"
	apiServer   = "https://10.99.0.1:6443"
)

var gateway = netip.MustParseAddr("10.99.0.1")

// Seats says what sits where on a node.
type Seats struct {
	Agent string // trivet or kubelet
	CRI   string // trivet or containerd
	CNI   string // trivet or upstream
	OCI   string // crun or runc
	Init  string // PID 1: trivet (trivet-cluster, cgroup driver cgroupfs) or systemd (cgroup driver systemd)
}

// Validate names the seat that is wrong.
func (s Seats) Validate() error {
	for _, c := range []struct {
		seat, value string
		allowed     [2]string
	}{
		{
			"node agent",
			s.Agent,
			[2]string{"trivet", "kubelet"},
		}, {"CRI server", s.CRI, [2]string{"trivet", "containerd"}},
		{
			"CNI plugin",
			s.CNI,
			[2]string{"trivet", "upstream"},
		}, {"OCI runtime", s.OCI, [2]string{"crun", "runc"}},
		{"init", s.Init, [2]string{"trivet", "systemd"}},
	} {
		if c.value != c.allowed[0] && c.value != c.allowed[1] {
			return fmt.Errorf("%s %q is neither %s nor %s", c.seat, c.value, c.allowed[0], c.allowed[1])
		}
	}

	return nil
}

// fits refuses pairs of programs that cannot work together: containerd 2.4 writes OCI 1.3 configurations,
// which a crun of OCI 1.0 (Debian 12 has crun 1.8.1) turns away as "unknown version specified".
func fits(s Seats) error {
	out, err := exec.Command(s.OCI, "--version").Output()
	if err != nil {
		return fmt.Errorf("OCI runtime %s: %w; run make install", s.OCI, err)
	}
	if s.CRI == "containerd" && s.OCI == "crun" && strings.Contains(string(out), "spec: 1.0.0") {
		return errors.New("this crun is too old for containerd 2.4 (it knows OCI 1.0 only): take " +
			"OCI=runc, or a crun of 1.15 or newer")
	}
	return nil
}

// Reference are the seats as most clusters have them today.
var Reference = Seats{
	Agent: "kubelet",
	CRI:   "containerd",
	CNI:   "upstream",
	OCI:   "runc",
	Init:  "trivet",
}

// Node of the cluster.
type Node struct {
	Name string
	Seats
}

// Plan is what a cluster is made of; it is kept in cluster.json.
type Plan struct {
	Port  int // on 127.0.0.1 of the host, for kubectl
	Nodes []Node
}

// Cluster is a handle on what lives below a state directory.
type Cluster struct {
	Dir      string    // state: pki, machines, kubeconfig; absolute
	Bin      string    // reference programs
	Programs string    // trivet's programs
	Images   string    // OCI layout that the registry serves
	Deploy   string    // manifests
	Out      io.Writer // progress

	start time.Time
	mu    sync.Mutex // one line of progress at a time
}

func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}
func (c *Cluster) pki() pki.Dir { return pki.Dir(c.path("pki")) }

// Kubeconfig is the administrator's, good on the host.
func (c *Cluster) Kubeconfig() string { return c.path("kubeconfig") }

// kubectlCache is where kubectl keeps what it has learned of the cluster; by itself, it fills the user's home
// with it.
const kubectlCache = "kubectl-cache"

// KubectlCache is for kubectl's environment variable KUBECACHEDIR.
func (c *Cluster) KubectlCache() string { return c.path(kubectlCache) }

// Machine of the control plane ("control-plane") or of a node.
func (c *Cluster) Machine(name string) *machine.Machine {
	return machine.At(c.path("machines", name))
}

func (c *Cluster) controlPlane() *machine.Machine { return c.Machine(controlPlaneName) }

func (c *Cluster) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.start.IsZero() {
		c.start = time.Now()
	}
	fmt.Fprintf(c.Out, "%6.1fs  %s\n", time.Since(c.start).Seconds(), fmt.Sprintf(format, args...))
}

// Plan reads the plan of the cluster that is up; fs.ErrNotExist when none is.
func (c *Cluster) Plan() (Plan, error) {
	var p Plan
	data, err := os.ReadFile(c.path("cluster.json"))
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("%s: %w", c.path("cluster.json"), err)
	}
	return p, nil
}

func (c *Cluster) writePlan(p Plan) error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteVolatile(c.path("cluster.json"), data, 0o644)
}

// Up brings the cluster up and returns when all nodes are Ready. A cluster that is up stays as it is; what is
// missing of it is started.
func (c *Cluster) Up(ctx context.Context, nodes []Node) error {
	c.start = time.Now()
	plan, err := c.adopt(ctx, nodes)
	if err != nil {
		return err
	}
	if err := c.makeIdentities(plan); err != nil {
		return err
	}
	if err := c.startControlPlane(ctx, plan); err != nil {
		return err
	}

	client, err := c.client()
	if err != nil {
		return err
	}
	if err := c.onEach(plan.Nodes, func(i int, n Node) error { return c.startNode(ctx, i, n) }); err != nil {
		return err
	}
	if err := c.awaitAPI(ctx, client); err != nil {
		return err
	}
	if err := c.startControllers(); err != nil {
		return err
	}
	if err := c.installAddons(ctx); err != nil {
		return err
	}

	if err := c.onEach(plan.Nodes, func(
		i int,
		n Node,
	) error {
		return c.joinNode(ctx, client, i, n)
	}); err != nil {
		return err
	}

	if err := c.startServiceProxy(plan); err != nil {
		return err
	}

	return c.connectNodes(ctx, client, plan)
}

// adopt takes the nodes as the plan, or checks that they are what is up already. Without a plan, whatever
// runs is left of a cluster whose directory was removed under it.
func (c *Cluster) adopt(ctx context.Context, nodes []Node) (Plan, error) {
	old, err := c.Plan()
	switch {
	case err == nil:
		if same, _ := json.Marshal(old.Nodes); string(same) != string(mustJSON(nodes)) {
			return old, errors.New("a cluster with other nodes is up; take it down first (make down)")
		}

		return old, nil

	case !errors.Is(err, fs.ErrNotExist):
		return old, err
	}

	for _, n := range nodes {
		if err := n.Validate(); err != nil {
			return old, fmt.Errorf("node %s: %w", n.Name, err)
		}
		if err := fits(n.Seats); err != nil {
			return old, fmt.Errorf("node %s: %w", n.Name, err)
		}
	}

	if err := c.clear(ctx); err != nil {
		return old, err
	}

	port, err := freePort()
	if err != nil {
		return old, err
	}

	plan := Plan{Port: port, Nodes: nodes}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return plan, err
	}
	if err := c.rememberHost(); err != nil {
		return plan, err
	}

	return plan, c.writePlan(plan)
}

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		// only for plain structs
		panic(err)
	}
	return data
}

func (c *Cluster) onEach(nodes []Node, f func(i int, n Node) error) error {
	var group sync.WaitGroup
	errs := make([]error, len(nodes))
	for i, n := range nodes {
		group.Go(func() {
			if err := f(i, n); err != nil {
				errs[i] = fmt.Errorf("node %s: %w", n.Name, err)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// Down ends every machine and removes what the cluster has made, except the reference programs and images. It
// is safe to repeat.
func (c *Cluster) Down(ctx context.Context) error {
	c.start = time.Now()
	if err := c.clear(ctx); err != nil {
		return err
	}
	c.say("the cluster is down")
	return nil
}

// clear ends the machines that have records, then those that have none but are in the cluster's cgroup, and
// removes what a cluster makes.
func (c *Cluster) clear(ctx context.Context) error {
	machines, err := os.ReadDir(c.path("machines"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	var group sync.WaitGroup
	errs := make([]error, len(machines))
	for i, e := range machines {
		group.Go(func() { errs[i] = c.Machine(e.Name()).Halt(ctx) })
	}

	group.Wait()
	if err := errors.Join(append(errs, c.stopProxy(), machine.Sweep(ctx, c.groups()), c.detachLoops())...); err != nil {
		return err
	}

	for _, d := range []string{"machines", "pki", "kubeconfig", kubectlCache, "cluster.json"} {
		if err := os.RemoveAll(c.path(d)); err != nil {
			return err
		}
	}

	return nil
}

// Reboot of a node: all its processes, mounts and cgroups go at once, then it boots with a new boot ID and
// the daemons of its seats.
func (c *Cluster) Reboot(ctx context.Context, name string) error {
	plan, err := c.Plan()
	if err != nil {
		return err
	}

	for i, n := range plan.Nodes {
		if n.Name != name {
			continue
		}
		if err := c.Machine(name).Halt(ctx); err != nil {
			return err
		}
		if err := c.startNode(ctx, i, n); err != nil {
			return err
		}

		client, err := c.client()
		if err != nil {
			return err
		}
		if err := c.joinNode(ctx, client, i, n); err != nil {
			return err
		}

		return c.connectNodes(ctx, client, plan)
	}

	return fmt.Errorf("no node is called %q", name)
}
