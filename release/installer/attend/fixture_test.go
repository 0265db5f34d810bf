package attend

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/release/installer/swap"
)

const (
	ours  swap.State = "v1-abc"
	label string     = "trivet.dev/cri"
)

// host is a machine that carries out orders as the test says.
type host struct {
	t      *testing.T
	folder swap.Folder

	mu       sync.Mutex
	launched []string
	swept    []swap.State
	gone     bool

	// left and taken are those of the next records, full is what Stage fails with, broken what all that asks
	// systemd does.
	left   string
	taken  time.Time
	full   error
	broken error

	canceled int

	// ago is how much longer ago the switch was than it is in most tests.
	ago time.Duration
}

func (h *host) Stage() (swap.State, error) { return ours, h.full }

func (h *host) Sweep(keep ...swap.State) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.swept, h.gone = keep, len(keep) == 0
	if h.gone {
		return h.folder.Forget()
	}
	return nil
}

func (h *host) Launch(context.Context, swap.State) error {
	order, err := h.folder.Order()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.launched = append(h.launched, order.ID)
	return errors.Join(err, h.broken)
}

func (h *host) Cancel(context.Context) error {
	h.canceled++
	return nil
}

// Idle is what the machine is unless an order is under way.
func (h *host) Idle(context.Context) (bool, error) {
	record, err := h.folder.Record()
	return record.Phase == swap.Done || record.Phase == "", errors.Join(err, h.broken)
}

// does writes what the machine has done with the last order.
func (h *host) does(phase swap.Phase, failure string) {
	h.t.Helper()
	order, err := h.folder.Order()
	if err != nil {
		h.t.Fatal(err)
	}
	before, err := h.folder.Record()
	if err != nil {
		h.t.Fatal(err)
	}

	if h.taken.IsZero() {
		h.taken = time.Now()
	}
	record := swap.Record{
		Order:    order,
		From:     before.State(),
		Phase:    phase,
		Stopped:  time.Now().Add(-3*time.Second - h.ago),
		Switched: time.Now().Add(-time.Second - h.ago),
		Ready:    time.Now(),
		Failure:  failure,
		Left:     h.left,
		Taken:    h.taken,
	}
	if before.Order.ID == order.ID {
		record.From = before.From
	}

	data, err := json.Marshal(record)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.folder.Path("record.json"), data, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// cluster is one with a node, and the attendant of that.
type cluster struct {
	*kubetest.Server
	t    *testing.T
	host *host
	cfg  Config
	a    *Attendant
}

func start(t *testing.T) *cluster {
	t.Helper()
	folder := swap.Folder(t.TempDir())
	c := &cluster{
		Server: kubetest.Start(t),
		t:      t,
		host:   &host{t: t, folder: folder},
		cfg: Config{
			Part:          "cri",
			Node:          "n1",
			Label:         label,
			State:         ours,
			Version:       "v1",
			Drains:        true,
			RuntimePrefix: "trivet-cri://",
			DrainLimit:    time.Hour,
			Pause:         time.Hour,
			Trial:         time.Minute,
			Log:           slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
	}

	c.again()
	c.Put(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{label: ""}},
		Status:     status("containerd://2"),
	})
	c.Put(&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: "n1"},
	})
	c.AnswerOn("create pods/eviction", func(runtime.Object) runtime.Object {
		return &metav1.Status{Status: metav1.StatusSuccess}
	})
	return c
}

// again is a pod that is started again: nothing in its memory counts.
func (c *cluster) again() {
	c.a = New(c.Client(), c.host, c.host.folder, c.cfg)
	go c.a.recorder.Run(c.t.Context())
}

func status(runtime string) corev1.NodeStatus {
	return corev1.NodeStatus{
		NodeInfo: corev1.NodeSystemInfo{ContainerRuntimeVersion: runtime},
		Conditions: []corev1.NodeCondition{{
			Type:              corev1.NodeReady,
			Status:            corev1.ConditionTrue,
			LastHeartbeatTime: metav1.Now(),
		}},
	}
}

func (c *cluster) node() *corev1.Node {
	return kubetest.Get[corev1.Node](c.Server, "nodes", "", "n1")
}

// change changes the node as somebody else does.
func (c *cluster) change(do func(*corev1.Node)) {
	node := c.node()
	do(node)
	c.Put(node)
}

// look takes steps until the attendant rests or waits.
func (c *cluster) look(steps int) {
	c.t.Helper()
	for range steps {
		if _, err := c.a.look(c.t.Context()); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) pod(name string, owner string, policy corev1.RestartPolicy) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName:      "n1",
			RestartPolicy: policy,
			Containers:    []corev1.Container{{Name: "a", Image: name + ":1"}},
		},
	}
	if owner != "" {
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: owner, Name: "x", Controller: new(true)}}
	}
	c.Put(pod)
}

func (c *cluster) evictions() (names []string) {
	for _, call := range c.Calls() {
		if name, ok := strings.CutPrefix(call, "create pods/eviction "); ok {
			names = append(names, name)
		}
	}
	return names
}

func (c *cluster) holder() string {
	lease := kubetest.Get[coordinationv1.Lease](c.Server, "leases", "kube-system", "trivet-installer")
	if lease == nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}
