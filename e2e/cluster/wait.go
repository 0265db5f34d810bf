package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/patience"
	"github.com/trivet-node/trivet/internal/retry"
)

// waitLimit bounds each wait for a part of the cluster to come up, on a machine that is not slow.
const waitLimit = 2 * time.Minute

func newClient(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 100, 200
	return kubernetes.NewForConfig(config)
}

// await calls check until it reports true, for at most waitLimit with patience. It returns at once when one
// of the daemons that the wait is for has ended: that would never come true.
func await(
	ctx context.Context, what string, interval time.Duration, m *machine.Machine, daemons []string,
	check func(context.Context) (bool, error),
) error {
	limit := patience.Of(waitLimit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()

	for range retry.Every(ctx, interval) {
		done, err := check(ctx)
		if err == nil && !done {
			err = checkDaemons(m, daemons)
		}
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if done {
			return nil
		}
	}

	return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
}

// checkDaemons returns an error that names the first of the daemons that has ended, and its log.
func checkDaemons(m *machine.Machine, names []string) error {
	states, err := m.List()
	if err != nil {
		return err
	}

	dead := ended(states, names)
	if dead == nil {
		return nil
	}
	return fmt.Errorf("%s on %s ended with %s; its log is %s",
		dead.Name, m.Name, dead.Exit, filepath.Clean(m.LogFile(dead.Name)))
}

// ended is the first of the named daemons that does not run any more, or nil.
func ended(states []machine.State, names []string) *machine.State {
	i := slices.IndexFunc(states, func(s machine.State) bool {
		return s.Pid == 0 && slices.Contains(names, s.Name)
	})
	if i < 0 {
		return nil
	}
	return &states[i]
}

// awaitAPI waits until the API server is ready.
func awaitAPI(ctx context.Context, client kubernetes.Interface, m *machine.Machine) error {
	daemons := []string{"etcd", "kube-apiserver"}
	ready := func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, patience.Of(2*time.Second))
		defer cancel()
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, nil
	}
	return await(ctx, "the API server", 50*time.Millisecond, m, daemons, ready)
}

// awaitCRI waits until the CRI server answers: a kubelet that comes earlier gives up at once, also when the
// server takes connections and is not ready yet, as containerd does for a moment.
func awaitCRI(ctx context.Context, m *machine.Machine, socket, server string) error {
	target := fmt.Sprintf("unix:///proc/%d/root%s", m.Pid(), socket)
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()

	client := cri.NewRuntimeServiceClient(conn)
	answers := func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, patience.Of(2*time.Second))
		defer cancel()
		conn.ResetConnectBackoff()
		_, err := client.Version(ctx, &cri.VersionRequest{})
		return err == nil, nil
	}
	return await(ctx, "its CRI server", 10*time.Millisecond, m, []string{server}, answers)
}

// awaitNode waits until the Node of a machine is Ready. onCIDRs, if it is not nil, is called when the Node
// has ranges of pod addresses.
func awaitNode(
	ctx context.Context, client kubernetes.Interface, m *machine.Machine, daemons []string,
	onCIDRs func(podCIDRs []string) error,
) error {
	boot := m.BootID()
	isReady := func(ctx context.Context) (bool, error) {
		node, err := client.CoreV1().Nodes().Get(ctx, m.Name, metav1.GetOptions{})
		if err != nil || node.Spec.PodCIDR == "" {
			return false, nil
		}

		if onCIDRs != nil {
			if err := onCIDRs(node.Spec.PodCIDRs); err != nil {
				return false, err
			}
		}

		return readySince(node, boot), nil
	}

	return await(ctx, "it to be Ready", 50*time.Millisecond, m, daemons, isReady)
}

// readySince reports whether the Node is Ready in this boot. After a reboot, the Node says Ready until
// somebody notices: only the new boot ID shows that its agent is back.
func readySince(n *corev1.Node, boot string) bool {
	return ready(n) && n.Status.NodeInfo.BootID == boot
}

func ready(n *corev1.Node) bool {
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			return cond.Status == corev1.ConditionTrue
		}
	}
	return false
}

// awaitPrograms waits until the Node of a machine is Ready and says that the programs are those that are
// wanted.
func awaitPrograms(
	ctx context.Context, client kubernetes.Interface, m *machine.Machine, daemon string,
	wanted func(corev1.NodeSystemInfo) bool,
) error {
	isThere := func(ctx context.Context) (bool, error) {
		node, err := client.CoreV1().Nodes().Get(ctx, m.Name, metav1.GetOptions{})
		if err != nil {
			return false, nil
		}
		return ready(node) && wanted(node.Status.NodeInfo), nil
	}
	return await(ctx, "the new program", 100*time.Millisecond, m, []string{daemon}, isThere)
}
