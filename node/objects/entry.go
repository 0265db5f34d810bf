package objects

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/node/kubeapi"
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
// at once: the caller retries with its own back-off, and is told by notify when the answer comes.
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

// set records what the server says and reports whether that is news to those who have asked: the first answer
// is not, as they wait for it, unless they were given an error in its place.
func (e *entry) set(obj runtime.Object) (news bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	news = e.err != nil || e.asked && version(obj) != version(e.obj)
	e.obj, e.err = obj, nil
	if !e.asked {
		e.asked = true
		close(e.known)
	}
	return news
}

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

// follow keeps an entry fresh until ctx ends: list, then watch from there; after any failure wait a little
// and list again. An immutable object is never watched: it cannot change. One that was deleted and made anew
// is seen, as with kubelet, only after no pod of the node has named it.
func (c *Cache) follow(ctx context.Context, key Key, e *entry) {
	const firstWait, maxWait = 200 * time.Millisecond, 10 * time.Second
	wait := firstWait
	for ctx.Err() == nil {
		start := time.Now()
		err := c.listAndWatch(ctx, key, e)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errImmutable) {
			return
		}

		if err != nil {
			c.log.Debug("watch of an object failed", "object", key.String(), "err", err)
			e.fail(err)
		}

		if time.Since(start) > maxWait {
			wait = firstWait
		}

		pause := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}

		wait = min(2*wait, maxWait)
	}
}

var errImmutable = errors.New("the object is immutable")

func (c *Cache) listAndWatch(ctx context.Context, key Key, e *entry) error {
	opts := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", key.Name).String()}
	var obj runtime.Object
	var version string
	err := kubeapi.Patient(ctx, func() (err error) {
		obj, version, err = c.list(ctx, key, opts)
		return err
	})
	if err != nil {
		return fmt.Errorf("list %s: %w", key, err)
	}
	if err := c.accept(e, obj); err != nil {
		return err
	}

	opts.ResourceVersion, opts.AllowWatchBookmarks = version, true
	for ctx.Err() == nil {
		opts.TimeoutSeconds = new(int64(300 + rand.N(300)))
		if opts.ResourceVersion, err = c.watch(ctx, key, e, opts); err != nil {
			return fmt.Errorf("watch %s: %w", key, err)
		}
	}

	return nil
}

func (c *Cache) list(ctx context.Context, key Key, opts metav1.ListOptions) (runtime.Object, string, error) {
	request := c.client.Core.Get().Resource(key.Resource).Namespace(key.Namespace).VersionedParams(
		&opts,
		c.client.Params,
	)

	switch key.Resource {
	case "configmaps":
		var l v1.ConfigMapList
		if err := request.Do(ctx).Into(&l); err != nil || len(l.Items) == 0 {
			return nil, l.ResourceVersion, err
		}

		return &l.Items[0], l.ResourceVersion, nil

	default:
		var l v1.SecretList
		if err := request.Do(ctx).Into(&l); err != nil || len(l.Items) == 0 {
			return nil, l.ResourceVersion, err
		}

		return &l.Items[0], l.ResourceVersion, nil
	}
}

// watch follows one watch and returns the resource version to continue from. A watch that merely ended is no
// error.
func (c *Cache) watch(ctx context.Context, key Key, e *entry, opts metav1.ListOptions) (string, error) {
	opts.Watch = true
	start := time.Now()
	w, err := c.client.Core.Get().Resource(key.Resource).Namespace(key.Namespace).VersionedParams(
		&opts,
		c.client.Params,
	).
		Timeout(0).Watch(ctx)
	if err != nil {
		return "", err
	}
	defer w.Stop()

	at, events := opts.ResourceVersion, 0
	for event := range w.ResultChan() {
		events++
		if event.Type == watch.Error {
			return "", apierrors.FromObject(event.Object)
		}
		if m, ok := event.Object.(metav1.Object); ok {
			at = m.GetResourceVersion()
		}

		switch event.Type {
		case watch.Added, watch.Modified:
			err = c.accept(e, event.Object)
		case watch.Deleted:
			err = c.accept(e, nil)
		}

		if err != nil {
			return "", err
		}
	}

	if events == 0 && time.Since(start) < time.Second {
		return "", errors.New("the server ended the watch at once")
	}

	return at, nil
}

func (c *Cache) accept(e *entry, obj runtime.Object) error {
	immutable := false
	switch o := obj.(type) {
	case *v1.ConfigMap:
		strip(&o.ObjectMeta)
		immutable = o.Immutable != nil && *o.Immutable
	case *v1.Secret:
		strip(&o.ObjectMeta)
		immutable = o.Immutable != nil && *o.Immutable
	}

	if e.set(obj) {
		for _, uid := range c.users(e) {
			c.notify(uid)
		}
	}

	if immutable {
		return errImmutable
	}

	return nil
}

// strip drops what the node never reads and what can be larger than the data.
func strip(m *metav1.ObjectMeta) {
	m.ManagedFields, m.Annotations, m.Labels, m.OwnerReferences = nil, nil, nil, nil
}

func newObject(resource string) runtime.Object {
	if resource == "configmaps" {
		return &v1.ConfigMap{}
	}
	return &v1.Secret{}
}

func (c *Cache) read(resource, namespace, name string) *rest.Request {
	return c.client.Core.Get().Resource(resource).Namespace(namespace).Name(name)
}
