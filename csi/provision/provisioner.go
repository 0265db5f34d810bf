// Package provision makes the volumes that claims ask for and deletes those that nobody claims any more. Each node has one, beside the CSI
// driver of that node: it serves the claims whose selected-node is its own and the volumes whose topology is its own, so no leader is needed
// and no claim waits for another node. To the Kubernetes API and to the driver (over CSI) it behaves as external-provisioner does.
package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	"github.com/trivet-node/trivet/internal/durable"
)

// Config of a Provisioner.
type Config struct {
	Driver      string // CSI name
	TopologyKey string // label that carries the node's name
	Node        string
	Dir         string // for records of volumes that have no object yet
	Client      kubernetes.Interface
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
	factory  informers.SharedInformerFactory
	claims   corelisters.PersistentVolumeClaimLister
	volumes  corelisters.PersistentVolumeLister
	classes  storagelisters.StorageClassLister
	csiNodes storagelisters.CSINodeLister
	events   record.EventRecorder
	sink     record.EventBroadcaster

	claimQueue  workqueue.TypedRateLimitingInterface[string]
	volumeQueue workqueue.TypedRateLimitingInterface[string]

	intents *durable.Store[intent]
	mu      sync.Mutex        // guards pending
	pending map[string]intent // by volume name: what may have been made, but has no object
}

// New checks the configuration and reads the intents of an earlier process.
func New(cfg Config) (*Provisioner, error) {
	if cfg.Driver == "" || cfg.TopologyKey == "" || cfg.Node == "" || cfg.Client == nil || cfg.CSI == nil {
		return nil, errors.New("provisioner: driver, topology key, node and clients are needed")
	}
	p := &Provisioner{cfg: cfg, factory: informers.NewSharedInformerFactoryWithOptions(cfg.Client, 0, informers.WithTransform(slim)),
		claimQueue: newQueue("claims"), volumeQueue: newQueue("volumes")}
	var err error
	if p.intents, err = durable.OpenStore[intent](cfg.Dir, false); err != nil {
		return nil, fmt.Errorf("open provisioning records: %w", err)
	}
	var torn []durable.Torn
	if p.pending, torn, err = p.intents.List(); err != nil {
		return nil, fmt.Errorf("read provisioning records: %w", err)
	}
	for _, t := range torn {
		cfg.Log.Error("record cannot be read and is set aside", "record", t.Name, "kept_as", t.Moved, "err", t.Err)
	}
	p.claims = p.factory.Core().V1().PersistentVolumeClaims().Lister()
	p.volumes = p.factory.Core().V1().PersistentVolumes().Lister()
	p.classes = p.factory.Storage().V1().StorageClasses().Lister()
	p.csiNodes = p.factory.Storage().V1().CSINodes().Lister()
	return p, nil
}

func newQueue(name string) workqueue.TypedRateLimitingInterface[string] {
	return workqueue.NewTypedRateLimitingQueueWithConfig(workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryLast),
		workqueue.TypedRateLimitingQueueConfig[string]{Name: name})
}

// slim drops what is large and never read before objects are cached.
func slim(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// Run works until ctx ends, and returns when all it began has ended.
func (p *Provisioner) Run(ctx context.Context) error {
	p.sink = record.NewBroadcaster(record.WithContext(ctx))
	defer p.sink.Shutdown()
	p.sink.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: p.cfg.Client.CoreV1().Events("")})
	p.events = p.sink.NewRecorder(scheme.Scheme, corev1.EventSource{Component: p.cfg.Driver + "_" + p.cfg.Node})
	if err := p.watch(); err != nil {
		return err
	}
	p.factory.Start(ctx.Done())
	defer p.factory.Shutdown()
	for kind, ok := range p.factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return fmt.Errorf("list %s: %w", kind, context.Cause(ctx))
		}
	}
	p.cfg.Log.Info("provisioning claims", "node", p.cfg.Node)

	var group sync.WaitGroup
	for range workers {
		group.Go(func() { p.work(ctx, p.claimQueue, p.syncClaim) })
		group.Go(func() { p.work(ctx, p.volumeQueue, p.syncVolume) })
	}
	group.Go(func() { p.settleNowAndThen(ctx) })
	<-ctx.Done()
	p.claimQueue.ShutDown()
	p.volumeQueue.ShutDown()
	group.Wait()
	return nil
}

// watch makes every change a hint to look at the object, or at all claims when something changed that all depend on.
func (p *Provisioner) watch() error {
	all := func(any) { p.enqueueAll() }
	add := func(queue workqueue.TypedRateLimitingInterface[string]) func(any) {
		return func(obj any) {
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {
				queue.Add(key)
			}
		}
	}
	for informer, hint := range map[cache.SharedIndexInformer]func(any){
		p.factory.Core().V1().PersistentVolumeClaims().Informer(): add(p.claimQueue),
		p.factory.Core().V1().PersistentVolumes().Informer():      add(p.volumeQueue),
		p.factory.Storage().V1().StorageClasses().Informer():      all,
	} {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: hint, UpdateFunc: func(_, obj any) { hint(obj) }, DeleteFunc: hint})
		if err != nil {
			return err
		}
	}
	_, err := p.factory.Storage().V1().CSINodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: all})
	return err
}

func (p *Provisioner) enqueueAll() {
	claims, err := p.claims.List(everything)
	if err != nil {
		return // listers of a cache do not fail
	}
	for _, c := range claims {
		p.claimQueue.Add(c.Namespace + "/" + c.Name)
	}
}

// work takes keys from a queue until it is shut down. A failed one comes again, later each time.
func (p *Provisioner) work(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string], sync func(context.Context, string) error) {
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
	all, err := p.csiNodes.List(everything)
	if err != nil {
		return nil
	}
	var names []string
	for _, n := range all {
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
