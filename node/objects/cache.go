// Package objects keeps the API objects that this node's pods refer to, and nothing else: ConfigMaps and
// Secrets are watched one by one (all that the Node authorizer allows), for as long as a pod of this node
// names them, and ClusterTrustBundles likewise or by their signers; Services, CSIDrivers and RuntimeClasses
// by one list-watch each, stripped to what the node needs; claims, volumes and attachments are read when
// asked for, as the authorizer allows no watch of them. A change is a hint: the pods that refer to the object
// are enqueued and looked at again.
package objects

import (
	"context"
	"log/slog"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
)

// Cache holds the objects. Make it with New, run Run, and keep it informed with Register and Unregister which
// pods are on the node. It is safe for concurrent use.
type Cache struct {
	configMaps *followed[v1.ConfigMap]
	secrets    *followed[v1.Secret]
	trust      *trust
	lists      lists
	reads      reads
}

// New returns a cache. notify is called, outside of any lock, with the UID of each registered pod whose
// ConfigMap, Secret or ClusterTrustBundle has appeared, changed or gone; it must not block.
func New(client *kube.Client, notify func(pod types.UID), log *slog.Logger) *Cache {
	return &Cache{
		configMaps: newFollowed(kind[v1.ConfigMap]{
			resource: "configmaps",
			source:   kube.ConfigMaps(client),
			meta:     func(m *v1.ConfigMap) *metav1.ObjectMeta { return &m.ObjectMeta },
			fixed:    func(m *v1.ConfigMap) bool { return m.Immutable != nil && *m.Immutable },
		}, notify, log),
		secrets: newFollowed(kind[v1.Secret]{
			resource: "secrets",
			source:   kube.Secrets(client),
			meta:     func(s *v1.Secret) *metav1.ObjectMeta { return &s.ObjectMeta },
			fixed:    func(s *v1.Secret) bool { return s.Immutable != nil && *s.Immutable },
		}, notify, log),
		trust: newTrust(client, notify, log),
		lists: newLists(client),
		reads: newReads(client),
	}
}

// Run keeps the cache until ctx ends and returns when all watches have ended. Reads before Run wait for it.
func (c *Cache) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { c.configMaps.run(ctx) })
	running.Go(func() { c.secrets.run(ctx) })
	running.Go(func() { c.trust.run(ctx) })
	c.lists.run(ctx)
	running.Wait()
}

// Register says that the pod is on the node: the objects that it names are watched from now on. Registering
// it again updates which those are.
func (c *Cache) Register(pod *v1.Pod) {
	named := references(pod)
	c.configMaps.register(pod.UID, named.configMaps)
	c.secrets.register(pod.UID, named.secrets)
	c.trust.register(pod.UID, named.bundles, named.signers)
}

// Unregister says that the pod has left the node. Objects that no other pod names are dropped.
func (c *Cache) Unregister(pod types.UID) {
	c.configMaps.register(pod, nil)
	c.secrets.register(pod, nil)
	c.trust.register(pod, nil, nil)
}

// ConfigMap returns the object as last seen, and waits for the first answer of its watch. It is shared: it
// must not be changed. An object that no registered pod names is read from the API server. The error is the
// server's (apierrors.IsNotFound...).
func (c *Cache) ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error) {
	return c.configMaps.get(ctx, types.NamespacedName{Namespace: namespace, Name: name})
}

// Secret is ConfigMap for Secrets.
func (c *Cache) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	return c.secrets.get(ctx, types.NamespacedName{Namespace: namespace, Name: name})
}
