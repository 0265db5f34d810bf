// Package objects keeps the API objects that this node's pods refer to, and nothing else: ConfigMaps and
// Secrets are watched one by one (all that the Node authorizer allows), for as long as a pod of this node
// names them; Services, CSIDrivers and RuntimeClasses by one list-watch each, stripped to what the node
// needs; claims, volumes and attachments are read when asked for, as the authorizer allows no watch of them.
// A change is a hint: the pods that refer to the object are enqueued and looked at again.
package objects

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
)

// The resources that are watched one by one.
const (
	configMaps = "configmaps"
	secrets    = "secrets"
)

// Key names a watched object.
type Key struct {
	Resource  string // configmaps or secrets
	Namespace string
	Name      string
}

func (k Key) String() string { return k.Resource + " " + k.Namespace + "/" + k.Name }

// Cache holds the objects. Make it with New, run Run, and keep it informed with Register and Unregister which
// pods are on the node. It is safe for concurrent use.
type Cache struct {
	log    *slog.Logger
	notify func(pod types.UID)

	configMaps kube.Objects[v1.ConfigMap]
	secrets    kube.Objects[v1.Secret]
	lists      lists
	reads      reads

	mu      sync.Mutex      // guards all below
	ctx     context.Context //nolint:containedctx // of Run: watches begin while it runs
	entries map[Key]*entry
	pods    map[types.UID]map[Key]bool
	stopped sync.WaitGroup
}

// New returns a cache. notify is called, outside of any lock, with the UID of each registered pod whose
// ConfigMap or Secret has appeared, changed or gone; it must not block.
func New(client *kube.Client, notify func(pod types.UID), log *slog.Logger) *Cache {
	return &Cache{
		log:        log,
		notify:     notify,
		configMaps: kube.ConfigMaps(client),
		secrets:    kube.Secrets(client),
		lists:      newLists(client),
		reads:      newReads(client),
		entries:    map[Key]*entry{},
		pods:       map[types.UID]map[Key]bool{},
	}
}

// Run keeps the cache until ctx ends and returns when all watches have ended. Reads before Run wait for it.
func (c *Cache) Run(ctx context.Context) {
	c.mu.Lock()
	c.ctx = ctx
	for key, e := range c.entries {
		c.start(key, e)
	}

	c.mu.Unlock()

	c.lists.run(ctx)

	c.mu.Lock()
	for _, e := range c.entries {
		e.stop()
	}

	c.mu.Unlock()
	c.stopped.Wait()
}

// Register says that the pod is on the node: the objects that it names are watched from now on. Registering
// it again updates which those are.
func (c *Cache) Register(pod *v1.Pod) {
	want := references(pod)
	c.mu.Lock()
	defer c.mu.Unlock()

	have := c.pods[pod.UID]
	for key := range want {
		if !have[key] {
			c.hold(key, pod.UID)
		}
	}

	for key := range have {
		if !want[key] {
			c.release(key, pod.UID)
		}
	}

	c.pods[pod.UID] = want
}

// Unregister says that the pod has left the node. Objects that no other pod names are dropped.
func (c *Cache) Unregister(pod types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.pods[pod] {
		c.release(key, pod)
	}
	delete(c.pods, pod)
}

// hold counts a pod among those that name an object. The caller holds the lock.
func (c *Cache) hold(key Key, pod types.UID) {
	e := c.entries[key]
	if e == nil {
		e = newEntry()
		c.entries[key] = e
		c.start(key, e)
	}
	e.users[pod] = true
}

// release ends what hold began. The caller holds the lock.
func (c *Cache) release(key Key, pod types.UID) {
	e := c.entries[key]
	if e == nil {
		return
	}
	delete(e.users, pod)
	if len(e.users) == 0 {
		delete(c.entries, key)
		e.stop()
	}
}

// start runs the watch of an entry if the cache is running. The caller holds the lock.
func (c *Cache) start(key Key, e *entry) {
	if c.ctx == nil || c.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	e.cancel = cancel
	c.stopped.Go(func() { c.follow(ctx, key, e) })
}

// ConfigMap returns the object as last seen, and waits for the first answer of its watch. It is shared: it
// must not be changed. An object that no registered pod names is read from the API server. The error is the
// server's (apierrors.IsNotFound...).
func (c *Cache) ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error) {
	return get(ctx, c, c.configMaps, Key{Resource: configMaps, Namespace: namespace, Name: name})
}

// Secret is ConfigMap for Secrets.
func (c *Cache) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	return get(ctx, c, c.secrets, Key{Resource: secrets, Namespace: namespace, Name: name})
}

func get[T any](ctx context.Context, c *Cache, source kube.Objects[T], key Key) (*T, error) {
	c.mu.Lock()
	e := c.entries[key]
	c.mu.Unlock()
	if e == nil {
		return read(ctx, source, key.Namespace, key.Name)
	}

	obj, err := e.wait(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}

	found, ok := any(obj).(*T)
	if !ok {
		return nil, apierrors.NewNotFound(v1.Resource(key.Resource), key.Name)
	}

	return found, nil
}

// users are the pods that name the entry's object.
func (c *Cache) users(e *entry) []types.UID {
	c.mu.Lock()
	defer c.mu.Unlock()
	uids := make([]types.UID, 0, len(e.users))
	for uid := range e.users {
		uids = append(uids, uid)
	}
	return uids
}
