// Package heartbeat is the node's face in the cluster: it registers the Node object, keeps its status true
// (at once when something changed, else every few minutes) and renews the Lease by which the control plane
// knows that the node lives.
package heartbeat

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/threshold"
)

// Config describes the node.
type Config struct {
	Name            string
	IPs             []string // primary first
	Hostname        string
	Labels          map[string]string
	Taints          []v1.Taint
	ProviderID      string
	Register        bool
	Version         string // shown as kubeletVersion
	Port            int32  // of the agent's API
	RootDir         string
	MaxPods         int64
	MaxImages       int             // listed in the status; -1: all
	Reserved        v1.ResourceList // not allocatable, beside what Thresholds keep free
	Thresholds      threshold.Set   // evictionHard
	AllAllocatable  bool            // what Thresholds keep free is allocatable
	PressureHold    time.Duration   // how long pressure is shown when it is over
	LeaseDuration   time.Duration
	ReportFrequency time.Duration // of an unchanged status
	CheckFrequency  time.Duration // how often runtime and machine are looked at

	// With an external cloud provider it is the cloud that says which addresses the node has: GivenIPs, of
	// --node-ip, are a hint to it.
	ExternalCloud bool
	GivenIPs      []string

	DeclaredFeatures []string // what the scheduler looks for on a node and this agent has (KEP-5328)
}

// Runtime is what the node's readiness depends on.
type Runtime interface {
	Info(ctx context.Context) (runtime.Info, error)
	ListImages(ctx context.Context) ([]*cri.Image, error)
	ImageDir(ctx context.Context) (string, error)
	UpdatePodCIDR(ctx context.Context, cidrs string) error
}

// Heart keeps the Node object alive.
type Heart struct {
	cfg        Config
	core       rest.Interface
	leases     rest.Interface
	runtime    Runtime
	event      func(kind, reason, message string)
	log        *slog.Logger
	nudge      chan struct{}
	registered chan struct{}

	mu      sync.Mutex // guards what follows
	node    *v1.Node   // as the API last showed it
	deleted types.UID  // a Node of ours that somebody has deleted
	want    *v1.NodeStatus
	low     map[v1.NodeConditionType]time.Time // when there was last less than a threshold

	refreshing sync.Mutex // guards refreshed, and is held while the Node is asked for because of a pod
	refreshed  time.Time  // when that began last

	told     string // pod ranges that the runtime knows; only the loop uses it
	imageDir string // where the runtime has its images; only the loop uses it
}

// New returns a heart that does not beat yet.
func New(
	cfg Config,
	core, leases rest.Interface,
	rt Runtime,
	event func(kind, reason, message string),
	log *slog.Logger,
) *Heart {
	return &Heart{
		cfg:        cfg,
		core:       core,
		leases:     leases,
		runtime:    rt,
		event:      event,
		log:        log,
		nudge:      make(chan struct{}, 1),
		registered: make(chan struct{}),
		low:        map[v1.NodeConditionType]time.Time{},
	}
}

// Node is the Node object as last seen, nil before the first registration.
func (h *Heart) Node() *v1.Node {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.node
}

// Saw takes a version of the Node and keeps it if it is newer than the known one.
func (h *Heart) Saw(n *v1.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if newer(n, h.node) {
		if h.node != nil && !slices.Equal(h.node.Spec.PodCIDRs, n.Spec.PodCIDRs) {
			h.Nudge()
		}
		n.ManagedFields = nil
		h.node = n
	}
}

// Registered is closed when the Node exists in the API.
func (h *Heart) Registered() <-chan struct{} { return h.registered }

// Nudge asks for a look at once.
func (h *Heart) Nudge() {
	select {
	case h.nudge <- struct{}{}:
	default:
	}
}

// Allocatable is what pods may use, computed from the machine: known before the API answers.
func (h *Heart) Allocatable() (v1.ResourceList, error) {
	c, err := capacity(h.cfg.RootDir, h.cfg.MaxPods)
	if err != nil {
		return nil, err
	}
	return h.allocatable(c), nil
}

// eager is how often a node that is not ready is looked at: the cluster waits for it.
const eager = 250 * time.Millisecond

// Run registers the node and keeps its status until ctx ends.
func (h *Heart) Run(ctx context.Context) {
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 7*time.Second) {
		err := h.register(ctx)
		if err == nil {
			break
		}

		h.log.Warn("register node", "node", h.cfg.Name, "err", err)
		if !sleep(ctx, wait) {
			return
		}
	}

	close(h.registered)
	var beats sync.WaitGroup
	beats.Go(func() { h.keepLease(ctx) })
	beats.Go(func() { h.Watch(ctx) })
	h.keepStatus(ctx)
	beats.Wait()
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// keepStatus looks and reports.
func (h *Heart) keepStatus(ctx context.Context) {
	var reported time.Time
	for {
		ok, err := h.report(ctx, h.due(reported))
		wait := h.cfg.CheckFrequency
		switch {
		case err != nil:
			h.log.Warn("report node status", "node", h.cfg.Name, "err", err)
			wait = min(wait, time.Second)
			if apierrors.IsNotFound(err) && h.cfg.Register {
				// somebody deleted the Node
				err = h.register(ctx)
				h.log.Info("node registered again", "node", h.cfg.Name, "err", err)
			}

		case ok:
			reported = time.Now()
		}

		if err == nil && !h.ready() {
			wait = eager
		}

		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-h.nudge:
			t.Stop()
		}
	}
}

// due reports whether the status is to be sent even if it has not changed. Of a Node that was deleted that
// shows that it must be registered again.
func (h *Heart) due(reported time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	lost := h.cfg.Register && h.node != nil && h.node.UID == h.deleted
	return lost || time.Since(reported) >= h.cfg.ReportFrequency
}

func (h *Heart) ready() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.want == nil {
		return false
	}
	c := findCondition(h.want, v1.NodeReady)
	return c != nil && c.Status == v1.ConditionTrue
}

// report sends the status if it changed or is due. It reports whether it was sent.
func (h *Heart) report(ctx context.Context, due bool) (sent bool, err error) {
	info, runtimeErr := h.runtime.Info(ctx)
	if ctx.Err() != nil {
		return false, nil
	}

	h.mu.Lock()
	node := h.node
	h.mu.Unlock()
	if cidrs := strings.Join(node.Spec.PodCIDRs, ","); cidrs != h.told && runtimeErr == nil {
		// most runtimes do not need to know
		if err := h.runtime.UpdatePodCIDR(ctx, cidrs); err != nil {
			h.log.Warn("tell the runtime the pod ranges", "ranges", cidrs, "err", err)
		}

		h.told = cidrs
	}

	want := node.Status.DeepCopy()
	if err := h.describe(want, info); err != nil {
		return false, err
	}

	changed := !sameDescription(&node.Status, want)
	wasReady := findCondition(&node.Status, v1.NodeReady)
	if apply(want, h.inspect(ctx, info, runtimeErr), time.Now().Truncate(time.Second)) {
		changed = true
	}

	h.mu.Lock()
	h.want = want
	h.mu.Unlock()
	if !changed && !due {
		return false, nil
	}
	if images, err := h.runtime.ListImages(ctx); err == nil {
		want.Images = nodeImages(images, h.cfg.MaxImages)
	}

	if h.cfg.ExternalCloud && equality.Semantic.DeepEqual(want.Addresses, node.Status.Addresses) {
		// not in the patch: the cloud may have changed them meanwhile
		want.Addresses = nil
	}

	patch, err := statusPatch(want)
	if err != nil {
		return false, err
	}

	out := &v1.Node{}
	err = h.core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(h.cfg.Name).SubResource("status").Body(patch).Do(ctx).Into(out)
	if err != nil {
		return false, err
	}

	h.Saw(out)
	if now := findCondition(want, v1.NodeReady); wasReady == nil || wasReady.Status != now.Status {
		if now.Status == v1.ConditionTrue {
			h.event(
				v1.EventTypeNormal,
				"NodeReady",
				fmt.Sprintf("Node %s status is now: NodeReady", h.cfg.Name),
			)
		} else {
			h.event(
				v1.EventTypeNormal,
				"NodeNotReady",
				fmt.Sprintf("Node %s status is now: NodeNotReady", h.cfg.Name),
			)
		}
	}

	return true, nil
}

// statusPatch sends only what a node agent owns; conditions and addresses merge by type, so addresses are
// replaced as a whole.
func statusPatch(s *v1.NodeStatus) ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}

	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}

	for _, name := range []string{"volumesInUse", "volumesAttached", "config", "phase"} {
		delete(m, name)
	}

	if a, ok := m["addresses"].([]any); ok {
		m["addresses"] = append([]any{map[string]string{"$patch": "replace"}}, a...)
	}

	var own []any
	if all, ok := m["conditions"].([]any); ok {
		for _, c := range all {
			if x, ok := c.(map[string]any); ok && ownCondition(x["type"]) {
				own = append(own, x)
			}
		}
	}

	m["conditions"] = own
	return json.Marshal(map[string]any{"status": m})
}

func ownCondition(kind any) bool {
	switch kind {
	case string(v1.NodeReady), string(v1.NodeMemoryPressure), string(v1.NodeDiskPressure),
		string(v1.NodePIDPressure):
		return true
	}
	return false
}

// owner refers to the Node, so that its Lease goes with it.
func (h *Heart) owner() []metav1.OwnerReference {
	n := h.Node()
	if n == nil || n.UID == "" {
		return nil
	}
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
}
