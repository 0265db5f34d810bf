// Package nodestatus is the node's face in the cluster: it registers the Node object and keeps its status
// true, at once when something has changed and every few minutes otherwise. It follows the Node, too, whose
// labels, taints and pod CIDRs others set.
package nodestatus

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/health"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/threshold"
)

// Config describes the node.
type Config struct {
	Name       string
	IPs        []string // primary first
	Hostname   string
	Labels     map[string]string
	Taints     []v1.Taint
	ProviderID string
	Register   bool
	Version    string // shown as kubeletVersion
	Port       int32  // of the agent's API
	RootDir    string
	MaxPods    int64
	MaxImages  int // listed in the status; -1: all

	Reserved       v1.ResourceList // not allocatable, beside what Thresholds keep free
	Thresholds     threshold.Set   // evictionHard
	AllAllocatable bool            // what Thresholds keep free is allocatable

	// InUse are the attachable volumes that the node uses; nil: none.
	InUse InUse

	// Pressure returns what the node is short of, as conditions; nil: of nothing.
	Pressure func() []v1.NodeConditionType

	ReportFrequency time.Duration // of an unchanged status
	CheckFrequency  time.Duration // how often runtime and machine are looked at

	// With an external cloud provider it is the cloud that says which addresses the node has: GivenIPs, of
	// --node-ip, are a hint to it.
	ExternalCloud bool
	GivenIPs      []string

	// DeclaredFeatures are those that the scheduler looks for on a node and this agent has (KEP-5328).
	DeclaredFeatures []string

	// Reached is told about the steps of the node's start, each once. It may be nil.
	Reached func(Milestone)

	Log *slog.Logger
}

// Milestone is a step of the node's start.
type Milestone int

// The steps, in their order. A Node that exists already is not Registered as new.
const (
	Registering Milestone = iota
	Registered
	Ready
)

// Runtime is what the node's readiness depends on.
type Runtime interface {
	Info(ctx context.Context) (runtime.Info, error)
	ListImages(ctx context.Context) ([]*runtime.Image, error)
	UpdatePodCIDR(ctx context.Context, cidrs string) error
}

// InUse knows the volumes that must not be detached (inuse.Volumes).
type InUse interface {
	// Names returns them, for a Node that shows some now. known is false as long as it is not known which
	// they are.
	Names(shown []v1.UniqueVolumeName) (names []v1.UniqueVolumeName, known bool)

	// Reported is told which of them the API shows.
	Reported(names []v1.UniqueVolumeName)
}

// Events records events about the node.
type Events interface {
	Record(about v1.ObjectReference, kind, reason, message string)
}

// Reporter registers the Node and reports its status. It is safe for concurrent use.
type Reporter struct {
	// Pulse beats with each look at the node, once it is registered.
	Pulse health.Pulse

	cfg        Config
	nodes      kube.Objects[v1.Node]
	runtime    Runtime
	events     Events
	registered chan struct{}
	own        *ownNode
	machine    machine.Machine

	// refreshing guards refreshed, when the Node was last read because of a pod. It is held meanwhile.
	refreshing sync.Mutex
	refreshed  time.Time

	// imagesChanged means that the images of the status are to be sent at the next look.
	imagesChanged atomic.Bool

	// podCIDRs are what the runtime was last given. The goroutine of Run alone uses them.
	podCIDRs string

	// wasReady means that the node was ready once. The goroutine of Run alone uses it.
	wasReady bool
}

// New returns a Reporter. It does nothing until Run runs.
func New(cfg Config, nodes kube.Objects[v1.Node], rt Runtime, events Events) *Reporter {
	if cfg.Pressure == nil {
		cfg.Pressure = func() []v1.NodeConditionType { return nil }
	}

	return &Reporter{
		Pulse:      health.Pulse{Every: cfg.CheckFrequency},
		cfg:        cfg,
		nodes:      nodes,
		runtime:    rt,
		events:     events,
		registered: make(chan struct{}),
		own:        &ownNode{changed: make(chan struct{}, 1)},
	}
}

// Node returns the Node as last seen, nil before the first registration.
func (r *Reporter) Node() *v1.Node { return r.own.get() }

// Registered is closed when the Node exists in the API.
func (r *Reporter) Registered() <-chan struct{} { return r.registered }

// Look has the node looked at without waiting: it has come under a pressure, or is no longer under it.
func (r *Reporter) Look() { r.own.wake() }

// ImagesChanged says that an image has come or gone. The next look at the node sends them all.
func (r *Reporter) ImagesChanged() { r.imagesChanged.Store(true) }

// Allocatable returns what pods may use. It is computed from the machine, so it is known before the API
// answers.
func (r *Reporter) Allocatable() (v1.ResourceList, error) {
	c, err := r.capacity()
	if err != nil {
		return nil, err
	}
	return r.allocatable(c), nil
}

// The pauses between attempts to register the Node, and between watches of it that have failed.
var (
	registerPauses = retry.Backoff{First: 200 * time.Millisecond, Max: 7 * time.Second}
	watchPauses    = retry.Backoff{First: 200 * time.Millisecond, Max: 30 * time.Second, Jitter: 1}
)

// Run registers the node and keeps its status until ctx ends.
func (r *Reporter) Run(ctx context.Context) {
	r.reach(Registering)
	err := retry.Until(ctx, registerPauses, func(ctx context.Context) error {
		err := r.register(ctx)
		if err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("node is not registered", "node", r.cfg.Name, "err", err)
		}

		return err
	})
	if err != nil {
		return
	}

	close(r.registered)

	var running sync.WaitGroup
	running.Go(func() { r.follow(ctx) })
	r.keepStatus(ctx)
	running.Wait()
}

func (r *Reporter) reach(m Milestone) {
	if r.cfg.Reached != nil {
		r.cfg.Reached(m)
	}
}

// notReadyCheck is how often a node that is not ready is looked at: the cluster waits for it.
const notReadyCheck = 250 * time.Millisecond

// doubtedCheck is how often the status is sent to a server that seems to have lost it. It is often enough for
// the answers to show whether it has (history.Lag).
const doubtedCheck = 10 * time.Second

// keepStatus looks at runtime and machine and reports what it finds, until ctx ends.
func (r *Reporter) keepStatus(ctx context.Context) {
	var reported time.Time
	for {
		r.Pulse.Beat()

		// An unchanged status is sent to a Node that was deleted, too: the answer shows that it was. And to a
		// server that seems to have lost it.
		due := time.Since(reported) >= r.cfg.ReportFrequency || r.own.isDoubted() ||
			r.cfg.Register && r.own.isGone()
		images := r.imagesChanged.Swap(false)
		sent, ready, err := r.report(ctx, due || images)
		switch {
		case sent:
			reported = time.Now()
		case images:
			r.ImagesChanged()
		}
		if sent && ready && !r.wasReady {
			r.wasReady = true
			r.reach(Ready)
		}

		// What the cluster waits for is tried again sooner than a usual look.
		pause := r.cfg.CheckFrequency
		switch {
		case err != nil:
			r.cfg.Log.Warn("node status is not reported", "node", r.cfg.Name, "err", err)
			pause = min(pause, time.Second)
			if apierrors.IsNotFound(err) && r.cfg.Register {
				err = r.register(ctx)
				r.cfg.Log.Info("node registered again", "node", r.cfg.Name, "err", err)
			}

		case !ready:
			pause = notReadyCheck

		default:
			pause = r.own.pause(pause)
		}

		// A Node that was deleted, or has been given other pod CIDRs, is looked at at once.
		select {
		case <-ctx.Done():
			return
		case <-r.own.changed:
		case <-time.After(pause):
		}
	}
}
