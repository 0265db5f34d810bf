package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/trivet-node/trivet/e2e/leaks"
	"github.com/trivet-node/trivet/e2e/loopdev"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/loopcontrol"
)

// rememberHost writes down how the host looks before the cluster comes up.
func rememberHost(state stateDir) error {
	now, err := leaks.TakeSnapshot()
	if err != nil {
		return err
	}

	data, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return durable.WriteVolatile(state.path(hostFile), data, 0o644)
}

// findLeaks lists what must not be there: on the host, when the cluster is down; on the nodes, while it is
// up, what is left of pods that are gone.
func (c *Cluster) findLeaks(ctx context.Context) ([]leaks.Leak, error) {
	plan, err := c.Plan()
	if errors.Is(err, fs.ErrNotExist) {
		return hostLeaks(c.state())
	}
	if err != nil {
		return nil, err
	}

	client, err := newClient(c.Kubeconfig())
	if err != nil {
		return nil, err
	}

	var out []leaks.Leak
	nodes := plan.Nodes
	if c.Machine(guestName).Pid() != 0 {
		nodes = append(slices.Clone(nodes), guestNode())
	}

	for _, n := range nodes {
		found, err := nodeLeaks(ctx, client, c.state(), n)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", n.Name, err)
		}

		for _, l := range found {
			out = append(out, leaks.Leak{Kind: n.Name + ": " + l.Kind, What: l.What})
		}
	}

	return out, nil
}

// AwaitNoLeaks returns when nothing is left that must not be there (see package leaks), and after the limit
// what is left as an error. The limit is the time that nodes may take to clean up after pods that have just
// gone.
func (c *Cluster) AwaitNoLeaks(ctx context.Context, limit time.Duration) error {
	return leaks.Await(ctx, limit, func() ([]leaks.Leak, error) { return c.findLeaks(ctx) })
}

func hostLeaks(state stateDir) ([]leaks.Leak, error) {
	out, err := leaks.Host(string(state), state.groups())
	if err != nil {
		return nil, err
	}

	data, err := os.ReadFile(state.path(hostFile))
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}

	var before leaks.Snapshot
	if err := json.Unmarshal(data, &before); err != nil {
		return nil, fmt.Errorf("%s: %w", state.path(hostFile), err)
	}

	now, err := leaks.TakeSnapshot()
	if err != nil {
		return nil, err
	}

	return append(out, now.Since(before)...), nil
}

// nodeDaemons are the programs that belong on a node without any pod.
var nodeDaemons = []string{
	"containerd", "kubelet", "kube-proxy", "trivet-cri", "trivet-monitor", "trivet-node", "trivet-netd",
	"trivet-csi", "dbus-daemon",
}

func nodeLeaks(
	ctx context.Context, client kubernetes.Interface, state stateDir, n Node,
) ([]leaks.Leak, error) {
	m := state.machine(n.Name)
	if m.Pid() == 0 {
		return nil, fmt.Errorf("machine %s is down", n.Name)
	}

	here := metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.Name}
	pods, err := client.CoreV1().Pods("").List(ctx, here)
	if err != nil {
		return nil, err
	}

	volumes, err := client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}

	return leaks.Node(leaks.View{
		Pid:        m.Pid(),
		Group:      state.group(n.Name),
		Keep:       string(state.nodeFiles(n.Name)),
		Daemons:    nodeDaemons,
		Live:       livePods(pods.Items),
		Volumes:    volumeHandles(volumes.Items),
		OldLogs:    n.Agent == "kubelet",
		UnitStates: func(names []string) map[string]string { return unitStates(ctx, m, names) },
	})
}

func livePods(pods []corev1.Pod) []leaks.Pod {
	var live []leaks.Pod
	for _, p := range pods {
		live = append(live, leaks.Pod{UID: string(p.UID), HostNetwork: p.Spec.HostNetwork})
	}
	return live
}

// volumeHandles are the CSI drivers' names of volumes, and the names of the directories that are volumes.
func volumeHandles(volumes []corev1.PersistentVolume) []string {
	var handles []string
	for _, pv := range volumes {
		if pv.Spec.CSI != nil {
			handles = append(handles, pv.Spec.CSI.VolumeHandle)
		}
		if pv.Spec.HostPath != nil {
			handles = append(handles, filepath.Base(pv.Spec.HostPath.Path))
		}
	}
	return handles
}

// unitStates asks a machine's systemd for the states of units.
func unitStates(ctx context.Context, m *machine.Machine, names []string) map[string]string {
	args := append([]string{"show", "--property=" + leaks.UnitProperties, "--"}, names...)
	cmd, err := m.Command(ctx, "systemctl", args...)
	if err != nil {
		return nil
	}

	// A unit may be gone by now; the others are shown all the same.
	out, _ := cmd.Output()
	return leaks.ParseUnitStates(string(out))
}

// detachLoops detaches the loop devices that the nodes whose machines were halted have left, and has the next
// users of all of theirs find them as new ones.
func detachLoops(machines []*machine.Machine) error {
	var errs []error
	for _, m := range machines {
		devices, err := leaks.VolumeLoops(filepath.Join(m.Dir, "keep"))
		errs = append(errs, err)
		for device, file := range devices {
			errs = append(errs, loopdev.Detach(device, file))
		}
	}
	return errors.Join(append(errs, loopcontrol.Mend())...)
}
