// Package provision makes the volumes that claims ask for and deletes those that nobody claims any more. Each
// node has one, beside the CSI driver of that node: it serves the claims whose selected-node is its own and
// the volumes whose topology is its own, so no leader is needed and no claim waits for another node. To the
// Kubernetes API and to the driver (over CSI) it behaves as external-provisioner does.
package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/trivet-node/trivet/csi/provision/kubeapi"
	"github.com/trivet-node/trivet/internal/durable"
)

// Config of a Provisioner.
type Config struct {
	Driver      string // CSI name
	TopologyKey string // label that carries the node's name
	Node        string
	Dir         string // for records of volumes that have no object yet
	Client      *kubeapi.Client
	CSI         csi.ControllerClient
	Log         *slog.Logger
}

const (
	workers      = 16 // of each queue; calls to the driver run side by side
	retryFirst   = 200 * time.Millisecond
	retryLast    = time.Minute
	callTimeout  = 2 * time.Minute
	settlePeriod = 5 * time.Minute
)

// Provisioner serves the claims of one node.
type Provisioner struct {
	cfg      Config
	claims   *kubeapi.Watch[corev1.PersistentVolumeClaim]
	volumes  *kubeapi.Watch[corev1.PersistentVolume]
	classes  *kubeapi.Watch[storagev1.StorageClass]
	csiNodes *kubeapi.Watch[storagev1.CSINode]
	driver   *kubeapi.Watch[storagev1.CSIDriver] // this one alone
	events   *recorder
	ours     map[string]string          // annotations of the volumes that this driver made; shared by all
	here     *corev1.VolumeNodeAffinity // of the volumes on this node; shared by all
	capacity chan struct{}              // a look at the capacity is due

	capacities *kubeapi.Watch[storagev1.CSIStorageCapacity] // of this node

	claimQueue  workqueue.TypedRateLimitingInterface[string]
	volumeQueue workqueue.TypedRateLimitingInterface[string]

	intents *durable.Store[intent]
	mu      sync.Mutex              // guards what follows
	pending map[string]intent       // by volume name: what may have been made, but has no object
	full    map[types.UID]time.Time // by claim: until when this node does not take it again
	refused map[types.UID]refusal   // by claim: a growth that the driver refused
	told    map[string]string       // by name of a capacity object: the bytes that were written last
}

// New checks the configuration and reads the intents of an earlier process.
func New(cfg Config) (*Provisioner, error) {
	if cfg.Driver == "" || cfg.TopologyKey == "" || cfg.Node == "" || cfg.Client == nil || cfg.CSI == nil {
		return nil, errors.New("provisioner: driver, topology key, node and clients are needed")
	}

	p := &Provisioner{
		cfg:         cfg,
		events:      newRecorder(cfg.Client, cfg.Driver+"_"+cfg.Node, cfg.Log),
		ours:        map[string]string{annProvisionedBy: cfg.Driver},
		here:        affinity([]*csi.Topology{{Segments: map[string]string{cfg.TopologyKey: cfg.Node}}}),
		capacity:    make(chan struct{}, 1),
		claimQueue:  newQueue("claims"),
		volumeQueue: newQueue("volumes"),
		full:        map[types.UID]time.Time{},
		refused:     map[types.UID]refusal{},
		told:        map[string]string{},
	}

	var err error
	if p.intents, err = durable.OpenStore[intent](cfg.Dir, false); err != nil {
		return nil, fmt.Errorf("open provisioning records: %w", err)
	}

	var torn []durable.Torn
	if p.pending, torn, err = p.intents.List(); err != nil {
		return nil, fmt.Errorf("read provisioning records: %w", err)
	}

	for _, t := range torn {
		cfg.Log.Error("record cannot be read and is set aside",
			"record", t.Name, "kept_as", t.Moved, "err", t.Err)
	}

	// Every change is a hint to look at the object, or at all claims when something changed that all depend
	// on.
	all := func(string) {
		p.enqueueAll()
		p.CapacityChanged()
	}

	p.claims = cfg.Client.Claims(
		kubeapi.Hints{Changed: p.claimQueue.Add, Gone: p.claimQueue.Add},
		p.slimClaim,
	)

	p.volumes = cfg.Client.Volumes(
		kubeapi.Hints{Changed: p.volumeQueue.Add, Gone: p.volumeQueue.Add},
		p.slimVolume,
	)

	p.classes = cfg.Client.Classes(kubeapi.Hints{Changed: all, Gone: all})
	p.csiNodes = cfg.Client.CSINodes(kubeapi.Hints{Gone: all})
	capacity := func(string) { p.CapacityChanged() }
	p.driver = cfg.Client.Driver(cfg.Driver, kubeapi.Hints{Changed: capacity, Gone: capacity})
	mine := cfg.TopologyKey + "=" + cfg.Node
	p.capacities = cfg.Client.Capacities(mine, kubeapi.Hints{Changed: p.capacitySeen, Gone: capacity})
	return p, nil
}

// Trouble tells whoever looks at the node what is wrong with its volumes. It does not block.
func (p *Provisioner) Trouble(backend string, err error) {
	kind, reason, text := corev1.EventTypeNormal, "VolumesRecovered", "works again"
	if err != nil {
		kind, reason, text = corev1.EventTypeWarning, "VolumesInTrouble", err.Error()
	}
	p.events.node(p.cfg.Node, kind, reason, "backend %s of %s: %s", backend, p.cfg.Driver, text)
}

func newQueue(name string) workqueue.TypedRateLimitingInterface[string] {
	return workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryLast),
		workqueue.TypedRateLimitingQueueConfig[string]{Name: name},
	)
}

// Run works until ctx ends, and returns when all it began has ended.
func (p *Provisioner) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()

	for _, watch := range []func(context.Context){
		p.classes.Run, p.csiNodes.Run, p.driver.Run, p.volumes.Run, p.claims.Run, p.capacities.Run,
		p.events.run,
	} {
		group.Go(func() { watch(ctx) })
	}

	defer p.claimQueue.ShutDown()
	defer p.volumeQueue.ShutDown()

	if !cache.WaitForCacheSync(
		ctx.Done(),
		p.classes.Filled,
		p.csiNodes.Filled,
		p.volumes.Filled,
		p.claims.Filled,
		p.driver.Filled,
		p.capacities.Filled,
	) {
		// asked to end before the API server answered
		return nil
	}

	p.cfg.Log.Info("provisioning claims", "node", p.cfg.Node)

	// the first lists were there whole, and are kept slim
	debug.FreeOSMemory()
	for range workers {
		group.Go(func() { p.work(ctx, p.claimQueue, p.syncClaim) })
		group.Go(func() { p.work(ctx, p.volumeQueue, p.syncVolume) })
	}

	group.Go(func() { p.settleNowAndThen(ctx) })
	group.Go(func() { p.publishCapacity(ctx) })
	<-ctx.Done()
	return nil
}

func (p *Provisioner) enqueueAll() {
	for _, c := range p.claims.List() {
		p.claimQueue.Add(c.Namespace + "/" + c.Name)
	}
}

// work takes keys from a queue until it is shut down. A failed one comes again, later each time.
func (p *Provisioner) work(
	ctx context.Context,
	queue workqueue.TypedRateLimitingInterface[string],
	sync func(context.Context, string) error,
) {
	for {
		key, down := queue.Get()
		if down {
			return
		}

		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		err := sync(callCtx, key)
		cancel()
		if err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("try again later", "object", key, "err", err)
			queue.AddRateLimited(key)
		} else {
			queue.Forget(key)
		}

		queue.Done(key)
	}
}

// nodes lists the nodes on which the driver is registered.
func (p *Provisioner) nodes() []string {
	var names []string
	for _, n := range p.csiNodes.List() {
		if runs(n, p.cfg.Driver) {
			names = append(names, n.Name)
		}
	}
	return names
}

func runs(n *storagev1.CSINode, driver string) bool {
	for _, d := range n.Spec.Drivers {
		if d.Name == driver {
			return true
		}
	}
	return false
}
