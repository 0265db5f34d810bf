// Package capacity tells the scheduler what a node can still promise to volumes, by a CSIStorageCapacity for
// each class whose volumes wait for their first consumer. Without those a pod that prefers a full node would
// be sent there each time.
package capacity

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/storage"
	"github.com/trivet-node/trivet/internal/retry"
)

const (
	// pause gathers changes.
	pause = 500 * time.Millisecond

	// period is how long something else may fill the disk before the scheduler learns of it.
	period = time.Minute

	// afterFailure is the time to the next attempt.
	afterFailure = 5 * time.Second

	// letThrough is published for a class that cannot be served as it is: its claim is sent here, and an
	// event then says why.
	letThrough = 1 << 60

	manager = "trivet-csi"
)

// Controller is the CSI controller service, as far as it is needed here.
type Controller interface {
	GetCapacity(
		ctx context.Context,
		r *csi.GetCapacityRequest,
		opts ...grpc.CallOption,
	) (*csi.GetCapacityResponse, error)
}

// Config of a Publisher.
type Config struct {
	Local   objects.Local
	Objects *objects.Watched
	Client  *kube.Client
	CSI     Controller
	Changes <-chan struct{} // has a value when what the node can promise has changed
	Log     *slog.Logger
}

// Publisher keeps the capacities of one node. What the API server has is watched: objects are deleted with
// their Node, among other reasons, and a Node may come back under the same name.
type Publisher struct {
	cfg        Config
	capacities kube.Objects[storagev1.CSIStorageCapacity]
	nodes      kube.Objects[corev1.Node]
	due        chan struct{} // holds a value when the objects are to be looked at

	// mu guards written.
	mu      sync.Mutex
	written map[string]string // by class: the bytes that were written last
}

// New returns a Publisher.
func New(cfg Config) *Publisher {
	p := &Publisher{
		cfg:        cfg,
		capacities: storage.Capacities(cfg.Client),
		nodes:      kube.Nodes(cfg.Client),
		due:        make(chan struct{}, 1),
		written:    map[string]string{},
	}

	cfg.Objects.Classes.OnChange(func(_, _ *storagev1.StorageClass) { p.wake() })
	cfg.Objects.Drivers.OnChange(func(_, _ *storagev1.CSIDriver) { p.wake() })
	cfg.Objects.Capacities.OnChange(func(_, now *storagev1.CSIStorageCapacity) {
		if !p.isEcho(now) {
			p.wake()
		}
	})

	return p
}

func (p *Publisher) wake() {
	select {
	case p.due <- struct{}{}:
	default:
	}
}

// isEcho reports whether an object says what was written last. That is no reason to look again: on a disk
// that is being written to, another number would be found, and be written, each time.
func (p *Publisher) isEcho(object *storagev1.CSIStorageCapacity) bool {
	if object == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	bytes := p.written[object.StorageClassName]
	return bytes != "" && says(p.cfg.Local, object, bytes)
}

// Run publishes until ctx ends.
func (p *Publisher) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-p.due:
		case <-p.cfg.Changes:
		case <-timer.C:
		}

		next := period
		if err := p.look(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("capacity is not published", "node", p.cfg.Local.Node, "err", err)
			next = afterFailure
		}

		if retry.Sleep(ctx, pause) != nil {
			return
		}

		timer.Reset(next)
	}
}

// look makes the objects of this node say what it can promise.
func (p *Publisher) look(ctx context.Context) error {
	wanted, err := p.wanted(ctx)
	if err != nil {
		return err
	}

	apply, remove := difference(p.cfg.Local, wanted, p.cfg.Objects.Capacities.All())
	if err := p.apply(ctx, apply, wanted); err != nil {
		return err
	}

	for _, name := range remove {
		err := p.capacities.Delete(ctx, namespace, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove capacity %s of a class that is gone: %w", name, err)
		}
	}

	return nil
}

// apply writes the objects of classes.
func (p *Publisher) apply(ctx context.Context, classes []string, wanted map[string]string) error {
	if len(classes) == 0 {
		return nil
	}

	node, err := p.nodes.Metadata(ctx, "", p.cfg.Local.Node)
	if err != nil {
		return fmt.Errorf("node %s: %w", p.cfg.Local.Node, err)
	}

	for _, class := range classes {
		object, err := objectOf(p.cfg.Local, class, wanted[class], string(node.UID))
		if err != nil {
			return err
		}

		p.mu.Lock()
		p.written[class] = wanted[class]
		p.mu.Unlock()
		_, err = p.capacities.Apply(ctx, namespace, nameOf(p.cfg.Local.Node, class), manager, object)
		if err != nil {
			return fmt.Errorf("capacity of class %s: %w", class, err)
		}
	}

	return nil
}

// wanted returns what is to be published, by class.
func (p *Publisher) wanted(ctx context.Context) (map[string]string, error) {
	wanted := map[string]string{}
	if !isWanted(p.cfg.Objects.Drivers.Get(p.cfg.Local.Driver)) {
		return wanted, nil
	}

	for _, class := range p.cfg.Objects.Classes.All() {
		if !isPublished(p.cfg.Local, class) {
			continue
		}

		bytes, err := p.free(ctx, class)
		if err != nil {
			return nil, err
		}

		wanted[class.Name] = resource.NewQuantity(bytes, resource.BinarySI).String()
	}

	return wanted, nil
}

// free is what the node can promise to the next volume of a class. The class's file system decides which
// backend that is.
func (p *Publisher) free(ctx context.Context, class *storagev1.StorageClass) (int64, error) {
	resp, err := p.cfg.CSI.GetCapacity(ctx, &csi.GetCapacityRequest{
		VolumeCapabilities: []*csi.VolumeCapability{
			objects.Capability(class, corev1.ReadWriteOnce, nil),
		},
		Parameters:         objects.Parameters(class),
		AccessibleTopology: p.cfg.Local.Topology(),
	})
	if status.Code(err) == codes.InvalidArgument {
		return letThrough, nil
	}
	return resp.GetAvailableCapacity(), err
}
