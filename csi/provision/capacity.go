package provision

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
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

// The scheduler learns from CSIStorageCapacity objects what a node can still promise: one for each class that waits for its consumer, and for
// each node. Without them a pod that prefers a full node is sent there again and again.

const (
	capacityNamespace = "kube-system"
	capacityPause     = 500 * time.Millisecond // gathers changes
	capacityPeriod    = time.Minute            // the disk below fills without a word to us
	capacityRetry     = 5 * time.Second

	// letThrough is told of a class that cannot be served as it is: the claim is sent here, and its event then says why.
	letThrough = 1 << 60
)

// CapacityChanged asks for a look at what the node can still promise. It does not block.
func (p *Provisioner) CapacityChanged() {
	select {
	case p.capacity <- struct{}{}:
	default: // a look is due already
	}
}

func (p *Provisioner) publishCapacity(ctx context.Context) {
	told := map[string]string{} // by class: what the API server has
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
		if err := p.tellCapacity(ctx, told); err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("capacity is not published", "node", p.cfg.Node, "err", err)
			clear(told)
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

// tellCapacity brings the objects of this node up to date.
func (p *Provisioner) tellCapacity(ctx context.Context, told map[string]string) error {
	now := map[string]string{}
	for _, class := range p.classes.List() {
		if class.Provisioner != p.cfg.Driver || !delayed(class) || !allows(class, p.cfg.TopologyKey, p.cfg.Node) {
			continue
		}
		bytes, err := p.free(ctx, class)
		if err != nil {
			return err
		}
		now[class.Name] = resource.NewQuantity(bytes, resource.BinarySI).String()
	}
	var uid string
	for class, bytes := range now {
		if told[class] == bytes {
			continue
		}
		var err error
		if uid == "" {
			if uid, err = p.cfg.Client.NodeUID(ctx, p.cfg.Node); err != nil {
				return fmt.Errorf("node %s: %w", p.cfg.Node, err)
			}
		}
		if err := p.applyCapacity(ctx, class, bytes, uid); err != nil {
			return fmt.Errorf("capacity of class %s: %w", class, err)
		}
	}
	if err := p.pruneCapacity(ctx, told, now); err != nil {
		return err
	}
	clear(told)
	for class, bytes := range now {
		told[class] = bytes
	}
	return nil
}

// free is what the node can promise to the next volume of a class.
func (p *Provisioner) free(ctx context.Context, class *storagev1.StorageClass) (int64, error) {
	mount := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: accessModes[corev1.ReadWriteOnce]},
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
	object, err := json.Marshal(map[string]any{
		"apiVersion": "storage.k8s.io/v1", "kind": "CSIStorageCapacity",
		"metadata": map[string]any{"name": name, "namespace": capacityNamespace, "labels": here,
			"ownerReferences": []any{map[string]string{"apiVersion": "v1", "kind": "Node", "name": p.cfg.Node, "uid": nodeUID}}},
		"nodeTopology": map[string]any{"matchLabels": here}, "storageClassName": class, "capacity": bytes, "maximumVolumeSize": bytes})
	if err != nil {
		return err
	}
	return p.cfg.Client.ApplyCapacity(ctx, capacityNamespace, name, object)
}

// pruneCapacity removes the objects of classes that went, once at the start and whenever one did.
func (p *Provisioner) pruneCapacity(ctx context.Context, told, now map[string]string) error {
	due := len(told) == 0
	for class := range told {
		due = due || now[class] == ""
	}
	if !due {
		return nil
	}
	var but []string
	for class := range now {
		but = append(but, p.capacityName(class))
	}
	err := p.cfg.Client.DeleteCapacities(ctx, capacityNamespace, p.cfg.TopologyKey+"="+p.cfg.Node, but)
	if err != nil && !apierrors.IsNotFound(err) {
		return errors.Join(errors.New("remove capacity of classes that are gone"), err)
	}
	return nil
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
