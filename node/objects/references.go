package objects

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// refs are the objects that a pod names.
type refs struct {
	namespace  string
	configMaps names
	secrets    names

	// bundles are ClusterTrustBundles, and signers those whose bundles the pod selects.
	bundles names
	signers map[string]bool
}

// references returns what a pod names in volumes, environments and pull secrets.
func references(pod *v1.Pod) refs {
	r := refs{
		namespace:  pod.Namespace,
		configMaps: names{},
		secrets:    names{},
		bundles:    names{},
		signers:    map[string]bool{},
	}

	for _, s := range pod.Spec.ImagePullSecrets {
		r.secret(s.Name)
	}

	for _, c := range pod.Spec.InitContainers {
		r.environment(c.Env, c.EnvFrom)
	}

	for _, c := range pod.Spec.Containers {
		r.environment(c.Env, c.EnvFrom)
	}

	for _, c := range pod.Spec.EphemeralContainers {
		r.environment(c.Env, c.EnvFrom)
	}

	for i := range pod.Spec.Volumes {
		r.volume(&pod.Spec.Volumes[i])
	}

	return r
}

func (r refs) secret(name string)    { r.add(r.secrets, name) }
func (r refs) configMap(name string) { r.add(r.configMaps, name) }

func (r refs) add(to names, name string) {
	if name != "" {
		to[types.NamespacedName{Namespace: r.namespace, Name: name}] = true
	}
}

func (r refs) environment(env []v1.EnvVar, from []v1.EnvFromSource) {
	for _, f := range from {
		if f.ConfigMapRef != nil {
			r.configMap(f.ConfigMapRef.Name)
		}
		if f.SecretRef != nil {
			r.secret(f.SecretRef.Name)
		}
	}

	for _, e := range env {
		if e.ValueFrom == nil {
			continue
		}
		if k := e.ValueFrom.ConfigMapKeyRef; k != nil {
			r.configMap(k.Name)
		}
		if k := e.ValueFrom.SecretKeyRef; k != nil {
			r.secret(k.Name)
		}
	}
}

func (r refs) volume(v *v1.Volume) {
	switch {
	case v.ConfigMap != nil:
		r.configMap(v.ConfigMap.Name)
	case v.Secret != nil:
		r.secret(v.Secret.SecretName)
	case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
		r.secret(v.CSI.NodePublishSecretRef.Name)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				r.configMap(s.ConfigMap.Name)
			}
			if s.Secret != nil {
				r.secret(s.Secret.Name)
			}
			if s.ClusterTrustBundle != nil {
				r.trust(s.ClusterTrustBundle)
			}
		}
	}
}

// trust adds the bundle that a source names, or else the signer: without a selector it selects none.
func (r refs) trust(source *v1.ClusterTrustBundleProjection) {
	switch {
	case source.Name != nil:
		r.bundles[types.NamespacedName{Name: *source.Name}] = true
	case source.SignerName != nil && source.LabelSelector != nil:
		r.signers[*source.SignerName] = true
	}
}
