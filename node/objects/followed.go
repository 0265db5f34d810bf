package objects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// kind is what has to be known of ConfigMaps or of Secrets.
type kind[T any] struct {
	resource string
	source   kube.Objects[T]
	meta     func(*T) *metav1.ObjectMeta
	fixed    func(*T) bool
}

// names are those of objects that a pod refers to.
type names map[types.NamespacedName]bool

// followed are the objects of one kind that pods of this node name. Each is followed by a watch of its own.
type followed[T any] struct {
	kind[T]
	shared[types.NamespacedName, *entry[T]]
	log    *slog.Logger
	notify func(pod types.UID)
}

func newFollowed[T any](k kind[T], notify func(types.UID), log *slog.Logger) *followed[T] {
	f := &followed[T]{
		kind:   k,
		log:    log,
		notify: notify,
	}
	f.open = func(types.NamespacedName) *entry[T] { return newEntry[T]() }
	f.keep = f.follow
	return f
}

// get returns an object as last seen, or reads it if no pod names it.
func (f *followed[T]) get(ctx context.Context, name types.NamespacedName) (*T, error) {
	e, ok := f.find(name)
	if !ok {
		return read(ctx, f.source, name.Namespace, name.Name)
	}

	found, err := e.wait(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", f.resource, strings.TrimPrefix(name.String(), "/"), err)
	}
	if found == nil {
		return nil, apierrors.NewNotFound(v1.Resource(f.resource), name.Name)
	}

	return found, nil
}

// followPauses are those after a failed list or watch. Many nodes may fail at the same time.
var followPauses = retry.Backoff{First: 200 * time.Millisecond, Max: 10 * time.Second, Jitter: 1}

// errImmutable ends the watch of an object that cannot change.
var errImmutable = errors.New("the object is immutable")

// follow keeps an entry fresh until ctx ends: list, then watch from there; after any failure wait a little
// and list again. An immutable object is never watched: it cannot change. One that was deleted and made again
// is seen, as with kubelet, only after no pod of the node has named it.
func (f *followed[T]) follow(ctx context.Context, name types.NamespacedName, e *entry[T]) {
	see := func(object *T) error { return f.see(name, e, object) }
	follower := kube.NewFollower(f.source, name.Namespace, name.Name, see)
	pauses := followPauses
	for ctx.Err() == nil {
		start := time.Now()
		err := follower.Run(ctx)
		if ctx.Err() != nil || errors.Is(err, errImmutable) {
			return
		}

		f.log.Debug("watch of an object failed", "object", f.resource+" "+name.String(), "err", err)
		e.fail(err)

		// One that has worked for long failed for another reason than the last one.
		if time.Since(start) > followPauses.Max {
			pauses.Reset()
		}
		if pauses.Wait(ctx) != nil {
			return
		}
	}
}

// see records what the server says, nil for no object, and notifies the pods that name the object if that is
// new to them.
func (f *followed[T]) see(name types.NamespacedName, e *entry[T], object *T) error {
	version, fixed := "", false
	if object != nil {
		meta := f.meta(object)
		strip(meta)
		version, fixed = meta.ResourceVersion, f.fixed(object)
	}

	if e.set(object, version) {
		for _, uid := range f.users(name) {
			f.notify(uid)
		}
	}

	if fixed {
		return errImmutable
	}

	return nil
}

// strip drops what the node never reads and what can be larger than the data.
func strip(m *metav1.ObjectMeta) {
	m.ManagedFields, m.Annotations = nil, nil
	m.Labels, m.OwnerReferences = nil, nil
}
