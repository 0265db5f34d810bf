package provision

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
)

// The scheduler learns from CSIStorageCapacity objects what a node can still promise: one for each class that
// waits for its consumer, and for each node. Without them a pod that prefers a full node is sent there again
// and again.

const (
	capacityNamespace = "kube-system"
	capacityPause     = 500 * time.Millisecond // gathers changes
	capacityPeriod    = time.Minute            // the disk below fills without a word to us
	capacityRetry     = 5 * time.Second

	// letThrough is told of a class that cannot be served as it is: the claim is sent here, and its event
	// then says why.
	letThrough = 1 << 60
)

// CapacityChanged asks for a look at what the node can still promise. It does not block.
func (p *Provisioner) CapacityChanged() {
	select {
	case p.capacity <- struct{}{}:
	// a look is due already
	default:
	}
}

func (p *Provisioner) publishCapacity(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-p.capacity:
		case <-timer.C:
		}

		next := capacityPeriod
		if err := p.tellCapacity(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("capacity is not published", "node", p.cfg.Node, "err", err)
			next = capacityRetry
		}

		select {
		case <-ctx.Done():
			return
		case <-time.After(capacityPause):
		}

		timer.Reset(next)
	}
}

// tellCapacity makes the objects of this node what they are to be. What the API server has is watched:
// objects come to an end with their Node, among other reasons, and a Node may come back under the same name.
func (p *Provisioner) tellCapacity(ctx context.Context) error {
	wanted, err := p.wantedCapacity(ctx)
	if err != nil {
		return err
	}

	have := map[string]*storagev1.CSIStorageCapacity{}
	for _, object := range p.capacities.List() {
		if object.Namespace == capacityNamespace {
			have[object.Name] = object
		}
	}

	uid := ""
	for class, bytes := range wanted {
		object := have[p.capacityName(class)]
		delete(have, p.capacityName(class))
		if object != nil && p.tells(object, class, bytes) {
			continue
		}

		if uid == "" {
			if uid, err = p.cfg.Client.NodeUID(ctx, p.cfg.Node); err != nil {
				return fmt.Errorf("node %s: %w", p.cfg.Node, err)
			}
		}

		p.mu.Lock()
		p.told[p.capacityName(class)] = bytes
		p.mu.Unlock()
		if err := p.applyCapacity(ctx, class, bytes, uid); err != nil {
			return fmt.Errorf("capacity of class %s: %w", class, err)
		}
	}

	for name := range have {
		if err := p.cfg.Client.DeleteCapacity(ctx, capacityNamespace, name); err != nil &&
			!apierrors.IsNotFound(err) {
			return fmt.Errorf("remove capacity %s, which no class is for: %w", name, err)
		}
	}

	return nil
}

// tells reports whether an object says what it is to say.
func (p *Provisioner) tells(object *storagev1.CSIStorageCapacity, class, bytes string) bool {
	return object.StorageClassName == class && object.Capacity != nil && object.Capacity.String() == bytes &&
		object.MaximumVolumeSize != nil && object.MaximumVolumeSize.String() == bytes &&
		object.NodeTopology != nil && object.NodeTopology.MatchLabels[p.cfg.TopologyKey] == p.cfg.Node
}

// capacitySeen is the news of an object that came or was changed. That it says what was told last is no
// reason to look again: on a disk that is being written to, the look would find another number, and the next
// one, too.
func (p *Provisioner) capacitySeen(key string) {
	object := p.capacities.Get(key)
	if object != nil {
		p.mu.Lock()
		told := p.told[object.Name]
		p.mu.Unlock()
		if told != "" && p.tells(object, object.StorageClassName, told) {
			return
		}
	}
	p.CapacityChanged()
}

// wantedCapacity is what is to be told, by class: nothing when the cluster does not want to know, as after
// the CSIDriver was deleted.
func (p *Provisioner) wantedCapacity(ctx context.Context) (map[string]string, error) {
	wanted := map[string]string{}
	driver := p.driver.Get(p.cfg.Driver)
	if driver == nil || driver.Spec.StorageCapacity == nil || !*driver.Spec.StorageCapacity {
		return wanted, nil
	}

	for _, class := range p.classes.List() {
		if class.Provisioner != p.cfg.Driver || !delayed(class) ||
			!allows(class, p.cfg.TopologyKey, p.cfg.Node) {
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

// free is what the node can promise to the next volume of a class.
func (p *Provisioner) free(ctx context.Context, class *storagev1.StorageClass) (int64, error) {
	mount := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{
		Mode: accessModes[corev1.ReadWriteOnce],
	},
		AccessType: mountOf(class)} // the file system decides which backend it is
	resp, err := p.cfg.CSI.GetCapacity(ctx, &csi.GetCapacityRequest{VolumeCapabilities: []*csi.VolumeCapability{mount}, Parameters: ownParameters(class),
		AccessibleTopology: &csi.Topology{Segments: map[string]string{p.cfg.TopologyKey: p.cfg.Node}}})
	if status.Code(err) == codes.InvalidArgument {
		return letThrough, nil
	}
	return resp.GetAvailableCapacity(), err
}

func (p *Provisioner) capacityName(class string) string {
	return fmt.Sprintf("trivet-%x", sha256.Sum256([]byte(p.cfg.Node+"/"+class)))[:39]
}

func (p *Provisioner) applyCapacity(ctx context.Context, class, bytes, nodeUID string) error {
	here := map[string]string{p.cfg.TopologyKey: p.cfg.Node}
	name := p.capacityName(class)
	owner := map[string]string{"apiVersion": "v1", "kind": "Node", "name": p.cfg.Node, "uid": nodeUID}
	object, err := json.Marshal(map[string]any{
		"apiVersion": "storage.k8s.io/v1",
		"kind":       "CSIStorageCapacity",
		"metadata": map[string]any{
			"name":            name,
			"namespace":       capacityNamespace,
			"labels":          here,
			"ownerReferences": []any{owner},
		},
		"nodeTopology":      map[string]any{"matchLabels": here},
		"storageClassName":  class,
		"capacity":          bytes,
		"maximumVolumeSize": bytes,
	})
	if err != nil {
		return err
	}

	return p.cfg.Client.ApplyCapacity(ctx, capacityNamespace, name, object)
}

// ownParameters are those of a class that are the driver's.
func ownParameters(class *storagev1.StorageClass) map[string]string {
	own := map[string]string{}
	for key, value := range class.Parameters {
		if !strings.HasPrefix(key, paramPrefix) {
			own[key] = value
		}
	}
	return own
}
