// Package forget deletes the PersistentVolumes of nodes that do not exist any more: the driver that keeps
// their finalizer went with the node. It touches nothing but objects of the Kubernetes API. Should the node
// come back, its driver finds volumes without objects, which it leaves alone.
package forget

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/retry"
)

// ErrExists is the error of a node that is not to be forgotten.
var ErrExists = errors.New("the node exists")

// protection is the finalizer by which the controller-manager keeps a volume as long as a claim is bound to
// it.
const protection = "kubernetes.io/pv-protection"

// defaultPeriod is that of a Config.
const defaultPeriod = 15 * time.Second

// Config of a Forgetter.
type Config struct {
	Driver      string // CSI name of the driver
	TopologyKey string // label that carries the node's name
	Client      *kube.Client
	Events      *event.Recorder
	Log         *slog.Logger

	// Period is how often all volumes are looked at; 0: every 15 s.
	Period time.Duration
}

// Forgetter deletes the PersistentVolumes of missing nodes.
type Forgetter struct {
	cfg     Config
	volumes kube.Objects[corev1.PersistentVolume]
	nodes   kube.Objects[corev1.Node]
}

// New returns a Forgetter.
func New(cfg Config) *Forgetter {
	return &Forgetter{cfg: cfg, volumes: kube.Volumes(cfg.Client), nodes: kube.Nodes(cfg.Client)}
}

// Node deletes the volumes of one node at once and returns what it deleted; ErrExists if there is that node.
func (f *Forgetter) Node(ctx context.Context, node string) ([]*corev1.PersistentVolume, error) {
	if err := f.checkMissing(ctx, node); err != nil {
		return nil, err
	}
	all, _, err := f.volumes.List(ctx, "", metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list PersistentVolumes: %w", err)
	}

	var dropped []*corev1.PersistentVolume
	for _, pv := range all {
		if of, ok := f.nodeOf(pv); !ok || of != node {
			continue
		}
		if err := f.drop(ctx, pv, node); err != nil {
			return dropped, err
		}
		dropped = append(dropped, pv)
	}
	return dropped, nil
}

// Run marks the volumes of missing nodes, and deletes them when the node has been missing for so long, until
// ctx ends. Of several processes one works, see Turn.
func (f *Forgetter) Run(ctx context.Context, turn *Turn, after time.Duration) {
	volumes := kube.NewWatch(f.volumes, kube.WatchConfig[corev1.PersistentVolume]{Slim: f.slim})
	nodes := kube.NewWatch(f.nodes, kube.WatchConfig[corev1.Node]{Slim: f.slimNode})

	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { volumes.Run(ctx) })
	group.Go(func() { nodes.Run(ctx) })
	if kube.AwaitListed(ctx, volumes, nodes) != nil {
		return
	}

	started := time.Now()
	for range retry.Every(ctx, cmp.Or(f.cfg.Period, defaultPeriod)) {
		mine, err := turn.take(ctx, time.Now())
		if err != nil && ctx.Err() == nil {
			f.cfg.Log.Warn("try again later", "lease", turn.Name, "err", err)
		}
		if !mine {
			continue
		}

		there := f.namesOf(nodes.All())
		watched := time.Since(started)
		for _, pv := range volumes.All() {
			if node, ok := f.nodeOf(pv); ok {
				f.look(ctx, pv, node, decide(pv, there[node], time.Now(), watched, after), after)
			}
		}
	}
}

// namesOf returns the names that nodes have, and those that the driver has given them.
func (f *Forgetter) namesOf(nodes []*corev1.Node) map[string]bool {
	names := map[string]bool{}
	for _, n := range nodes {
		names[n.Name] = true
		if name, ok := n.Labels[f.cfg.TopologyKey]; ok {
			names[name] = true
		}
	}
	return names
}

// look does what is due for one volume. What fails is due again the next time.
func (f *Forgetter) look(
	ctx context.Context, pv *corev1.PersistentVolume, node string, due fate, after time.Duration,
) {
	var err error
	switch due {
	case mark:
		err = f.mark(ctx, pv, node, after)
	case unmark:
		err = f.annotate(ctx, pv, nil)
	case drop:
		err = f.drop(ctx, pv, node)
	case keep:
	}

	if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		f.cfg.Log.Warn("try again later", "volume", pv.Name, "node", node, "err", err)
	}
}

// nodeOf returns the node of a volume of the driver; ok is false for those of others.
func (f *Forgetter) nodeOf(pv *corev1.PersistentVolume) (node string, ok bool) {
	return objects.NodeOf(pv, f.cfg.Driver, f.cfg.TopologyKey)
}

// checkMissing asks the API server itself, not a cache. A driver may have another name for its node than its
// Node has: that of the label.
func (f *Forgetter) checkMissing(ctx context.Context, node string) error {
	_, err := f.nodes.Metadata(ctx, "", node)
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s; only what is gone is forgotten (kubectl delete node %s)",
			ErrExists, node, node)
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read Node %s: %w", node, err)
	}

	named := f.cfg.TopologyKey + "=" + node
	same, _, err := f.nodes.List(ctx, "", metav1.ListOptions{LabelSelector: named})
	if err != nil {
		return fmt.Errorf("list Nodes with label %s: %w", named, err)
	}
	if len(same) > 0 {
		return fmt.Errorf("%w: Node %s has label %s; only what is gone is forgotten (kubectl delete node %s)",
			ErrExists, same[0].Name, named, same[0].Name)
	}
	return nil
}

func (f *Forgetter) mark(
	ctx context.Context, pv *corev1.PersistentVolume, node string, after time.Duration,
) error {
	if err := f.checkMissing(ctx, node); err != nil {
		return err
	}
	now := time.Now().UTC()
	if err := f.annotate(ctx, pv, now.Format(time.RFC3339)); err != nil {
		return err
	}
	f.say(pv, "NodeMissing", fmt.Sprintf("node %s, which has the volume, does not exist; if it does not come"+
		" back, this is forgotten after %s", node, now.Add(after).Format(time.RFC3339)))
	return nil
}

// annotate writes the annotation, or removes it (nil), on the very version that was read.
func (f *Forgetter) annotate(ctx context.Context, pv *corev1.PersistentVolume, since any) error {
	return f.patch(ctx, pv, "annotations", map[string]any{MissingSince: since})
}

// drop deletes a volume's object. It goes although a claim is bound to it: nobody can use the claim, and it
// says that it is lost. A process that was killed on the way does the rest the next time.
func (f *Forgetter) drop(ctx context.Context, seen *corev1.PersistentVolume, node string) error {
	if err := f.checkMissing(ctx, node); err != nil {
		return err
	}

	if seen.DeletionTimestamp == nil {
		f.say(seen, "NodeForgotten", fmt.Sprintf("the volume went with node %s, which does not exist any"+
			" more; a claim that is bound to it has to be deleted and made again", node))
		err := f.volumes.Delete(ctx, "", seen.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &seen.UID},
		})
		if err != nil {
			return ignoringGone(err)
		}
	}

	pv, err := f.volumes.Get(ctx, "", seen.Name)
	if err != nil {
		return ignoringGone(err)
	}
	if pv.UID != seen.UID {
		return nil
	}

	// Those of others are theirs to take off.
	others := slices.DeleteFunc(slices.Clone(pv.Finalizers), func(name string) bool {
		return name == objects.Finalizer || name == protection
	})
	if err := f.patch(ctx, pv, "finalizers", others); err != nil {
		return ignoringGone(err)
	}

	f.cfg.Log.Info("forgot a volume of a node that is gone", "volume", pv.Name, "node", node)
	return nil
}

// patch replaces a field of the metadata of the very version that was read.
func (f *Forgetter) patch(ctx context.Context, pv *corev1.PersistentVolume, field string, value any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             pv.UID,
		"resourceVersion": pv.ResourceVersion,
		field:             value,
	}})
	if err != nil {
		return err
	}
	if _, err := f.volumes.Patch(ctx, "", pv.Name, types.MergePatchType, patch); err != nil {
		return fmt.Errorf("set %s of PersistentVolume %s: %w", field, pv.Name, err)
	}
	return nil
}

// say records an event about a volume and, as those who wait look there, its claim.
func (f *Forgetter) say(pv *corev1.PersistentVolume, reason, message string) {
	about := event.Object("PersistentVolume", &pv.ObjectMeta)
	f.cfg.Events.Record(about, corev1.EventTypeWarning, reason, message)
	if claim := pv.Spec.ClaimRef; claim != nil {
		about := *claim
		about.Kind, about.APIVersion = "PersistentVolumeClaim", "v1"
		f.cfg.Events.Record(about, corev1.EventTypeWarning, reason, message)
	}
}

func ignoringGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// slim keeps of volumes what decisions rest on.
func (f *Forgetter) slim(pv *corev1.PersistentVolume) {
	if _, ok := f.nodeOf(pv); !ok {
		pv.Spec = corev1.PersistentVolumeSpec{}
	}
	pv.ManagedFields, pv.Labels = nil, nil
}

// slimNode keeps of nodes what they are called.
func (f *Forgetter) slimNode(n *corev1.Node) {
	var labels map[string]string
	if name, ok := n.Labels[f.cfg.TopologyKey]; ok {
		labels = map[string]string{f.cfg.TopologyKey: name}
	}
	*n = corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:            n.Name,
		UID:             n.UID,
		ResourceVersion: n.ResourceVersion,
		Labels:          labels,
	}}
}
