package forget

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/retry"
)

// keeper is a kind of object, of any type.
type keeper interface {
	// run watches the objects until ctx ends. Listed is closed when it is known which there are. look does
	// what is due for them.
	run(ctx context.Context)
	Listed() <-chan struct{}
	look(ctx context.Context, there map[string]bool, watched, after time.Duration)

	// dropOf deletes the objects of a node, and returns them.
	dropOf(ctx context.Context, node string) ([]Forgotten, error)

	// dependents asks the API server for the objects whose node only their volumes say.
	dependents(ctx context.Context) (dependents, error)
}

// dependents delete, by the handle of a volume, the objects that are on its node because of that alone.
type dependents map[string][]func(ctx context.Context, node string) error

// drop deletes those of a volume that is on a node.
func (d dependents) drop(ctx context.Context, handle, node string) error {
	for _, one := range d[handle] {
		if err := one(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

// kind are the objects of one kind that drivers keep for their nodes.
type kind[T any] struct {
	*guard
	name    string // of the kind
	version string // of its group
	objects kube.Objects[T]
	watch   *kube.Watch[T]
	listed  chan struct{}

	// own are the finalizers that a node's driver, or who waits for it, would take off.
	own []string

	// of says what there is to know of an object; ok is false if it is not the driver's, or of no one node.
	of func(*T) (k kept, ok bool)

	// first asks, once in each look that drops something, for what goes before; nil: nothing does.
	first func(ctx context.Context) (dependents, error)

	// lost is what has become of what the object stands for, in words that follow "the".
	lost string
}

// kept is what is to be known of an object that a driver keeps for its node.
type kept struct {
	*metav1.ObjectMeta
	node string
	user *corev1.ObjectReference // what is bound to it; nil: nothing

	// handles are those of the volumes that node follows from, or that of the volume itself; nil: it has its
	// node of its own.
	handles []string
}

// absent are the pauses between looks for kinds that nobody has installed.
var absent = retry.Backoff{First: time.Second, Max: time.Minute}

// newKind has a kind be watched, when run runs. slim takes from an object what decisions do not rest on.
func newKind[T any](k kind[T], slim func(*T)) *kind[T] {
	k.listed = make(chan struct{})
	known := sync.OnceFunc(func() { close(k.listed) })
	k.watch = kube.NewWatch(k.objects, kube.WatchConfig[T]{
		Slim:   slim,
		Listed: known,
		Failed: func(err error) {
			if apierrors.IsNotFound(err) {
				known()
				return
			}
			k.cfg.Log.Warn("cannot watch", "kind", k.name, "err", err)
		},
		Retry: absent,
	})
	return &k
}

func (k *kind[T]) run(ctx context.Context) { k.watch.Run(ctx) }

func (k *kind[T]) Listed() <-chan struct{} { return k.listed }

func (k *kind[T]) dropOf(ctx context.Context, node string) ([]Forgotten, error) {
	all, err := k.list(ctx)
	if err != nil {
		return nil, err
	}

	var dropped []Forgotten
	for _, object := range all {
		o, ok := k.of(object)
		if !ok || o.node != node {
			continue
		}
		if err := k.drop(ctx, o); err != nil {
			return dropped, err
		}
		dropped = append(dropped, Forgotten{Kind: k.name, Name: o.Name, User: o.user})
	}
	return dropped, nil
}

func (k *kind[T]) dependents(ctx context.Context) (dependents, error) {
	all, err := k.list(ctx)
	if err != nil {
		return nil, err
	}

	d := dependents{}
	for _, object := range all {
		o, ok := k.of(object)
		if !ok {
			continue
		}
		for _, handle := range o.handles {
			d[handle] = append(d[handle], func(ctx context.Context, node string) error {
				if o.node != node {
					return nil
				}
				return k.drop(ctx, o)
			})
		}
	}
	return d, nil
}

// list asks the API server itself. There are none of a kind that nobody has installed.
func (k *kind[T]) list(ctx context.Context) ([]*T, error) {
	all, _, err := k.objects.List(ctx, "", metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %ss: %w", k.name, err)
	}
	return all, nil
}

// look does what is due for each object. What fails is due again the next time.
func (k *kind[T]) look(ctx context.Context, there map[string]bool, watched, after time.Duration) {
	first := sync.OnceValues(func() (dependents, error) {
		if k.first == nil {
			return nil, nil
		}
		return k.first(ctx)
	})

	for _, object := range k.watch.All() {
		o, ok := k.of(object)
		if !ok {
			continue
		}

		due := decide(o.Annotations, there[o.node], time.Now(), watched, after)
		err := k.do(ctx, o, due, after, first)
		if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			k.cfg.Log.Warn("try again later", "kind", k.name, "object", o.Name, "node", o.node, "err", err)
		}
	}
}

func (k *kind[T]) do(
	ctx context.Context, o kept, due fate, after time.Duration, first func() (dependents, error),
) error {
	switch due {
	case mark:
		return k.mark(ctx, o, after)
	case unmark:
		return k.annotate(ctx, o, nil)
	case drop:
		before, err := first()
		if err != nil {
			return err
		}
		for _, handle := range o.handles {
			if err := before.drop(ctx, handle, o.node); err != nil {
				return fmt.Errorf("what is on volume %s goes first: %w", handle, err)
			}
		}
		return k.drop(ctx, o)
	case keep:
	}
	return nil
}

func (k *kind[T]) mark(ctx context.Context, o kept, after time.Duration) error {
	if err := k.checkMissing(ctx, o.node); err != nil {
		return err
	}
	now := time.Now().UTC()
	if err := k.annotate(ctx, o, now.Format(time.RFC3339)); err != nil {
		return err
	}
	k.say(o, "NodeMissing", fmt.Sprintf("node %s, which this is on, does not exist; if it does not come"+
		" back, this is forgotten after %s", o.node, now.Add(after).Format(time.RFC3339)))
	return nil
}

// annotate writes the annotation, or removes it (nil), on the very version that was read.
func (k *kind[T]) annotate(ctx context.Context, o kept, since any) error {
	return k.patch(ctx, o, "annotations", map[string]any{MissingSince: since})
}

// drop deletes an object. It goes although something is bound to it: nobody can use that, and it shows that
// it is lost. A process that was killed on the way does the rest the next time.
func (k *kind[T]) drop(ctx context.Context, seen kept) error {
	if err := k.checkMissing(ctx, seen.node); err != nil {
		return err
	}

	if seen.DeletionTimestamp == nil {
		k.say(seen, "NodeForgotten", fmt.Sprintf("the %s went with node %s, which does not exist any more;"+
			" what is bound to this has to be deleted and made again", k.lost, seen.node))
		err := k.objects.Delete(ctx, "", seen.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &seen.UID},
		})
		if err != nil {
			return ignoringGone(err)
		}
	}

	object, err := k.objects.Get(ctx, "", seen.Name)
	if err != nil {
		return ignoringGone(err)
	}
	now, ok := k.of(object)
	if !ok || now.UID != seen.UID {
		return nil
	}

	// Those of others are theirs to take off.
	others := slices.DeleteFunc(slices.Clone(now.Finalizers), func(name string) bool {
		return slices.Contains(k.own, name)
	})
	if err := k.patch(ctx, now, "finalizers", others); err != nil {
		return ignoringGone(err)
	}

	k.cfg.Log.Info("forgot what was on a node that is gone",
		"kind", k.name, "object", now.Name, "node", now.node)
	return nil
}

// patch replaces a field of the metadata of the very version that was read.
func (k *kind[T]) patch(ctx context.Context, o kept, field string, value any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             o.UID,
		"resourceVersion": o.ResourceVersion,
		field:             value,
	}})
	if err != nil {
		return err
	}
	if _, err := k.objects.Patch(ctx, "", o.Name, types.MergePatchType, patch); err != nil {
		return fmt.Errorf("set %s of %s %s: %w", field, k.name, o.Name, err)
	}
	return nil
}

// say records an event about an object and, as those who wait look there, what is bound to it.
func (k *kind[T]) say(o kept, reason, message string) {
	about := event.Object(k.name, o.ObjectMeta)
	about.APIVersion = k.version
	k.cfg.Events.Record(about, corev1.EventTypeWarning, reason, message)
	if o.user != nil {
		k.cfg.Events.Record(*o.user, corev1.EventTypeWarning, reason, message)
	}
}

func ignoringGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
