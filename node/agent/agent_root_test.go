package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/supervisor"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/config"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

// testNode is a node with a runtime in memory and an API server in memory. It needs root for control groups
// and volumes only.
type testNode struct {
	t       *testing.T
	cfg     config.Config
	api     *kubetest.Server
	runtime *runtimetest.Server
	ended   chan error // of the agent that was started last

	supervisor supervisor.Supervisor
}

func newTestNode(t *testing.T) *testNode {
	t.Helper()
	testenv.Root(t)
	n := &testNode{
		t:       t,
		api:     kubetest.Start(t),
		runtime: runtimetest.Start(t),
		cfg:     defaults(t),
	}

	root := testenv.ShortDir(t)
	kubeconfig := filepath.Join(root, "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
		contexts: [{name: c, context: {cluster: k, user: u}}],
		clusters: [{name: k, cluster: {server: "%s"}}], users: [{name: u, user: {token: t}}]}`, n.api.URL())
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	n.cfg.NodeName = "n"
	n.cfg.RootDir = filepath.Join(root, "kubelet")
	n.cfg.RuntimeEndpoint = "unix://" + n.runtime.Socket
	n.cfg.ImageEndpoint = n.cfg.RuntimeEndpoint
	n.cfg.Identity = config.Identity{Kubeconfig: kubeconfig, CertDir: filepath.Join(root, "pki")}
	n.cfg.Logs.Dir = filepath.Join(root, "log", "pods")
	n.cfg.Static.Path = filepath.Join(root, "manifests")
	n.cfg.API.Address = "127.0.0.1:0"
	n.cfg.HealthAddress = ""
	n.cfg.Machine = config.Machine{}
	n.cfg.Process = config.Process{}

	// A machine whose disk is nearly full, as that of the tests may be, would evict the pods.
	n.cfg.Resources.EvictionHard = nil

	n.cfg.Cgroups.Root = "/trivet-test-" + t.Name()

	// It does not say which cgroup driver it uses, as old runtimes: the test runs without systemd.
	n.runtime.FailOn("RuntimeConfig", status.Error(codes.Unimplemented, "an old runtime"))
	n.removeCgroups()
	return n
}

// removeCgroups removes the control groups when the test has ended.
func (n *testNode) removeCgroups() {
	host, err := cgroup.Open()
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := host.Remove(context.WithoutCancel(n.t.Context()), n.cfg.Cgroups.Root); err != nil {
			n.t.Error(err)
		}
	})
}

// start runs the agent. stop ends it and returns its error.
func (n *testNode) start() (stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	ended := make(chan error, 1)
	n.ended = ended
	env := &program.Env{
		Log:        slog.New(slog.NewTextHandler(n.t.Output(), nil)),
		Supervisor: n.supervisor,
	}
	go func() { ended <- Run(ctx, n.cfg, env) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// await waits until something is so, while the agent runs.
func (n *testNode) await(what string, is func() bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 30*time.Second)
	defer cancel()

	for range retry.Every(ctx, 5*time.Millisecond) {
		if is() {
			return
		}

		select {
		case err := <-n.ended:
			n.t.Fatalf("%s: the agent has ended: %v", what, err)
		default:
		}
	}

	n.t.Fatalf("%s: not so after 30 s; calls to the API server:\n%s", what, strings.Join(n.api.Calls(), "\n"))
}

// phase is that of a pod in the API, empty if it has none.
func (n *testNode) phase(name string) v1.PodPhase {
	pod := kubetest.Get[v1.Pod](n.api, "pods", "ns", name)
	if pod == nil {
		return ""
	}
	return pod.Status.Phase
}

// bound is a pod that the scheduler has bound to the node.
func bound(name string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: v1.PodSpec{
			NodeName:                      "n",
			RestartPolicy:                 v1.RestartPolicyAlways,
			TerminationGracePeriodSeconds: new(int64(1)),
			EnableServiceLinks:            new(false),
			Containers: []v1.Container{{
				Name:                     "c",
				Image:                    "registry.example/c:1",
				TerminationMessagePath:   "/dev/termination-log",
				TerminationMessagePolicy: v1.TerminationMessageReadFile,
				ReadinessProbe: &v1.Probe{
					ProbeHandler:     v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"true"}}},
					PeriodSeconds:    1,
					TimeoutSeconds:   1,
					SuccessThreshold: 1,
					FailureThreshold: 3,
				},
			}},
		},
	}
}

const manifest = `{apiVersion: v1, kind: Pod, metadata: {name: static, namespace: ns},
	spec: {containers: [{name: c, image: "registry.example/static:1"}]}}`

func TestTheAgentRunsPodsOfTheAPIAndOfFiles(t *testing.T) {
	n := newTestNode(t)
	if err := os.MkdirAll(n.cfg.Static.Path, 0o750); err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(n.cfg.Static.Path, "static.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}

	n.api.Put(bound("p"))
	stop := n.start()

	// The node, its lease and its pods.
	n.await("the node is registered", func() bool {
		return kubetest.Get[v1.Node](n.api, "nodes", "", "n") != nil
	})
	n.await("the lease is there", func() bool {
		return kubetest.Get[coordinationv1.Lease](n.api, "leases", v1.NamespaceNodeLease, "n") != nil
	})
	n.await("the pod runs", func() bool { return n.phase("p") == v1.PodRunning })
	n.await("the static pod is shown", func() bool { return n.phase("static-n") == v1.PodRunning })
	n.await("there are events", func() bool { return len(kubetest.All[v1.Event](n.api, "events")) > 0 })

	// What is deleted is ended and removed; what has no manifest any more, too.
	deleted := kubetest.Get[v1.Pod](n.api, "pods", "ns", "p")
	deleted.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	deleted.DeletionGracePeriodSeconds = new(int64(1))
	n.api.Put(deleted)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}

	n.await("the pod has gone", func() bool { return n.phase("p") == "" })
	n.await("the mirror has gone", func() bool { return n.phase("static-n") == "" })
	n.await("nothing is left in the runtime", func() bool { return len(n.runtime.Left()) == 0 })

	if err := stop(); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
}

func TestContainersOutliveTheAgent(t *testing.T) {
	n := newTestNode(t)
	n.api.Put(bound("p"))
	stop := n.start()
	n.await("the pod runs", func() bool { return n.phase("p") == v1.PodRunning })
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	before := n.runtime.Asked("StartContainer")
	if len(n.runtime.Left()) == 0 {
		t.Fatal("the containers ended with the agent")
	}

	stop = n.start()
	second := bound("second")
	n.api.Put(second)
	n.await("the second pod runs", func() bool { return n.phase("second") == v1.PodRunning })
	if got := n.runtime.Asked("StartContainer"); got != before+1 {
		t.Errorf("%d containers were started, want 1", got-before)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestTwoAgentsDoNotShareARootDirectory(t *testing.T) {
	n := newTestNode(t)
	stop := n.start()
	n.await("the node is registered", func() bool {
		return kubetest.Get[v1.Node](n.api, "nodes", "", "n") != nil
	})
	err := Run(t.Context(), n.cfg, &program.Env{Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "--root-dir") {
		t.Errorf("the second agent: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
