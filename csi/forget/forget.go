// Package forget deletes the objects of nodes that do not exist any more: PersistentVolumes, and the contents
// of snapshots and group snapshots. The driver that keeps their finalizer went with the node. It touches
// nothing but objects of the Kubernetes API. Should the node come back, its driver finds volumes and
// snapshots without objects, which it leaves alone.
package forget

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/retry"
)

// ErrExists is the error of a node that is not to be forgotten.
var ErrExists = errors.New("the node exists")

// defaultPeriod is that of a Config.
const defaultPeriod = 15 * time.Second

// Config of a Forgetter.
type Config struct {
	Driver      string // CSI name of the driver
	TopologyKey string // label that carries the node's name
	Client      *kube.Client
	Events      *event.Recorder
	Log         *slog.Logger

	// Period is how often all objects are looked at; 0: every 15 s.
	Period time.Duration
}

// Forgetter deletes the objects of missing nodes.
type Forgetter struct {
	*guard
	volumes *kind[corev1.PersistentVolume]
	kinds   []keeper // in the order in which they are deleted
}

// guard says which nodes may be forgotten, and what is on them.
type guard struct {
	cfg   Config
	nodes kube.Objects[corev1.Node]

	// homes are the nodes of volumes, by their handles, as of the last look at them.
	homes map[string]string
}

// Forgotten is an object that was deleted.
type Forgotten struct {
	Kind, Name string
	User       *corev1.ObjectReference // what was bound to it; nil: nothing
}

// String returns it as a person wants to read it: "PersistentVolume a (PersistentVolumeClaim default/b)".
func (f Forgotten) String() string {
	user := "nothing was bound to it"
	if f.User != nil {
		user = fmt.Sprintf("%s %s/%s", f.User.Kind, f.User.Namespace, f.User.Name)
	}
	return fmt.Sprintf("%s %s (%s)", f.Kind, f.Name, user)
}

// New returns a Forgetter.
func New(cfg Config) *Forgetter {
	g := &guard{cfg: cfg, nodes: kube.Nodes(cfg.Client)}
	contents := []keeper{groups(g), snapshots(g)}
	all := volumes(g)

	// Which node a snapshot is on may follow from its volume: that goes when no such snapshot is left. Those
	// may be younger than the volume's mark, or of a kind that was installed when it was marked already.
	all.first = func(ctx context.Context) (dependents, error) {
		d := dependents{}
		for _, k := range contents {
			some, err := k.dependents(ctx)
			if err != nil {
				return nil, err
			}
			for handle, drops := range some {
				d[handle] = append(d[handle], drops...)
			}
		}
		return d, nil
	}
	return &Forgetter{guard: g, volumes: all, kinds: append(contents, all)}
}

// Node deletes the objects of one node at once and returns what it deleted; ErrExists if there is that node.
func (f *Forgetter) Node(ctx context.Context, node string) ([]Forgotten, error) {
	if err := f.checkMissing(ctx, node); err != nil {
		return nil, err
	}
	all, _, err := f.volumes.objects.List(ctx, "", metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list PersistentVolumes: %w", err)
	}
	f.homes = homesOf(all, f.volumes.of)
	for _, version := range installed {
		objects.SayUnserved(ctx, f.cfg.Client, f.cfg.Log, version)
	}

	var dropped []Forgotten
	for _, k := range f.kinds {
		some, err := k.dropOf(ctx, node)
		dropped = append(dropped, some...)
		if err != nil {
			return dropped, err
		}
	}
	return dropped, nil
}

// Run marks the objects of missing nodes, and deletes them when the node has been missing for so long, until
// ctx ends. Of several processes one works, see Turn.
func (f *Forgetter) Run(ctx context.Context, turn *Turn, after time.Duration) {
	nodes := kube.NewWatch(f.nodes, kube.WatchConfig[corev1.Node]{Slim: f.slimNode})

	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { nodes.Run(ctx) })
	for _, version := range installed {
		group.Go(func() { objects.AwaitServed(ctx, f.cfg.Client, f.cfg.Log, version) })
	}
	for _, k := range f.kinds {
		group.Go(func() { k.run(ctx) })
	}
	for _, k := range f.kinds {
		if kube.AwaitListed(ctx, nodes, k) != nil {
			return
		}
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

		f.homes = homesOf(f.volumes.watch.All(), f.volumes.of)
		there, watched := f.namesOf(nodes.All()), time.Since(started)
		for _, k := range f.kinds {
			k.look(ctx, there, watched, after)
		}
	}
}

// homesOf returns the nodes of volumes, by their handles.
func homesOf(
	all []*corev1.PersistentVolume, of func(*corev1.PersistentVolume) (kept, bool),
) map[string]string {
	homes := map[string]string{}
	for _, pv := range all {
		if o, ok := of(pv); ok {
			homes[pv.Spec.CSI.VolumeHandle] = o.node
		}
	}
	return homes
}

// namesOf returns the names that nodes have, and those that the driver has given them.
func (g *guard) namesOf(nodes []*corev1.Node) map[string]bool {
	names := map[string]bool{}
	for _, n := range nodes {
		names[n.Name] = true
		if name, ok := n.Labels[g.cfg.TopologyKey]; ok {
			names[name] = true
		}
	}
	return names
}

// homeOf returns the node of the first of the volumes that is known.
func (g *guard) homeOf(handles []string) string {
	for _, handle := range handles {
		if node := g.homes[handle]; node != "" {
			return node
		}
	}
	return ""
}

// checkMissing asks the API server itself, not a cache. A driver may have another name for its node than its
// Node has: that of the label.
func (g *guard) checkMissing(ctx context.Context, node string) error {
	_, err := g.nodes.Metadata(ctx, "", node)
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s; only what is gone is forgotten (kubectl delete node %s)",
			ErrExists, node, node)
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read Node %s: %w", node, err)
	}

	named := g.cfg.TopologyKey + "=" + node
	same, _, err := g.nodes.List(ctx, "", metav1.ListOptions{LabelSelector: named})
	if err != nil {
		return fmt.Errorf("list Nodes with label %s: %w", named, err)
	}
	if len(same) > 0 {
		return fmt.Errorf("%w: Node %s has label %s; only what is gone is forgotten (kubectl delete node %s)",
			ErrExists, same[0].Name, named, same[0].Name)
	}
	return nil
}

// slimNode keeps of nodes what they are called.
func (g *guard) slimNode(n *corev1.Node) {
	var labels map[string]string
	if name, ok := n.Labels[g.cfg.TopologyKey]; ok {
		labels = map[string]string{g.cfg.TopologyKey: name}
	}
	*n = corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:            n.Name,
		UID:             n.UID,
		ResourceVersion: n.ResourceVersion,
		Labels:          labels,
	}}
}
