package objects

import (
	"context"
	"errors"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// entry is one watched object.
type entry struct {
	users  map[types.UID]bool // guarded by Cache.mu, as is cancel
	cancel context.CancelFunc

	mu    sync.Mutex    // guards all below
	known chan struct{} // closed once the server has answered: object or nil is the truth
	asked bool
	obj   runtime.Object // nil: does not exist
	err   error          // why the server gives no answer, e.g. forbidden; a later answer clears it
	tried chan struct{}  // closed and replaced at each failed attempt
}

func newEntry() *entry {
	return &entry{users: map[types.UID]bool{}, known: make(chan struct{}), tried: make(chan struct{})}
}

func (e *entry) stop() {
	if e.cancel != nil {
		e.cancel()
	}
}

// wait returns the object, nil when there is none, once the server has answered. A failing server is an error
// at once: the caller retries with its own back-off, and is notified when the answer comes.
func (e *entry) wait(ctx context.Context) (runtime.Object, error) {
	e.mu.Lock()
	if e.asked || e.err != nil {
		defer e.mu.Unlock()

		return e.obj, e.err
	}

	tried := e.tried
	e.mu.Unlock()

	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-e.known:
	case <-tried:
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	return e.obj, e.err
}

// set records what the server says. It reports whether that differs from what those were given who have
// asked: the first answer does not, as they wait for it, unless they were given an error in its place.
func (e *entry) set(obj runtime.Object) (differs bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	differs = e.err != nil || e.asked && version(obj) != version(e.obj)
	e.obj, e.err = obj, nil
	if !e.asked {
		e.asked = true
		close(e.known)
	}
	return differs
}

// fail records why the server gives no answer.
func (e *entry) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.asked {
		// what was known stays good while the server is away
		e.err = err
		close(e.tried)
		e.tried = make(chan struct{})
	}
}

// version identifies a state of an object, "" for none. A recreated object has another resource version too.
func version(obj runtime.Object) string {
	if m, ok := obj.(metav1.Object); ok && m != nil {
		return m.GetResourceVersion()
	}
	return ""
}

// followPauses are those after a failed list or watch. Many nodes may fail at the same time.
var followPauses = retry.Backoff{First: 200 * time.Millisecond, Max: 10 * time.Second, Jitter: 1}

// follow keeps an entry fresh until ctx ends: list, then watch from there; after any failure wait a little
// and list again. An immutable object is never watched: it cannot change. One that was deleted and made again
// is seen, as with kubelet, only after no pod of the node has named it.
func (c *Cache) follow(ctx context.Context, key Key, e *entry) {
	pauses := followPauses
	for ctx.Err() == nil {
		start := time.Now()
		err := c.listAndWatch(ctx, key, e)
		if ctx.Err() != nil || errors.Is(err, errImmutable) {
			return
		}

		c.log.Debug("watch of an object failed", "object", key.String(), "err", err)
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

var errImmutable = errors.New("the object is immutable")

func (c *Cache) listAndWatch(ctx context.Context, key Key, e *entry) error {
	if key.Resource == configMaps {
		return kube.Follow(ctx, c.configMaps, key.Namespace, key.Name, func(m *v1.ConfigMap) error {
			if m == nil {
				return c.accept(e, nil, nil)
			}

			strip(&m.ObjectMeta)
			return c.accept(e, m, m.Immutable)
		})
	}

	return kube.Follow(ctx, c.secrets, key.Namespace, key.Name, func(s *v1.Secret) error {
		if s == nil {
			return c.accept(e, nil, nil)
		}

		strip(&s.ObjectMeta)
		return c.accept(e, s, s.Immutable)
	})
}

// accept records what the server says and tells the pods that name the object if it is new to them.
func (c *Cache) accept(e *entry, obj runtime.Object, immutable *bool) error {
	if e.set(obj) {
		for _, uid := range c.users(e) {
			c.notify(uid)
		}
	}
	if immutable != nil && *immutable {
		return errImmutable
	}
	return nil
}

// strip drops what the node never reads and what can be larger than the data.
func strip(m *metav1.ObjectMeta) {
	m.ManagedFields, m.Annotations = nil, nil
	m.Labels, m.OwnerReferences = nil, nil
}
