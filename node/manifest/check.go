package manifest

import (
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// check refuses what a static pod may not say.
func check(pod *v1.Pod) error {
	if err := checkNames(pod); err != nil {
		return err
	}
	if kind := references(&pod.Spec); kind != "" {
		return fmt.Errorf("static pods may not reference %s", kind)
	}
	return nil
}

// checkNames: paths on the node are made of these names, and the API takes no others.
func checkNames(pod *v1.Pod) error {
	for what, wrong := range map[string][]string{
		"name " + pod.Name:           validation.IsDNS1123Subdomain(pod.Name),
		"namespace " + pod.Namespace: validation.IsDNS1123Label(pod.Namespace),
		"uid " + string(pod.UID):     validation.IsDNS1123Subdomain(string(pod.UID)),
	} {
		if len(wrong) > 0 {
			return fmt.Errorf("%s: %s", what, wrong[0])
		}
	}

	if len(pod.Spec.Containers) == 0 {
		return errors.New("the pod has no containers")
	}
	if len(pod.Spec.EphemeralContainers) > 0 {
		return errors.New("a manifest cannot have ephemeral containers")
	}

	containers := slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
	if err := labels("container", containers, func(c v1.Container) string { return c.Name }); err != nil {
		return err
	}

	for _, c := range containers {
		if c.Image == "" {
			return fmt.Errorf("container %s has no image", c.Name)
		}
	}

	return labels("volume", pod.Spec.Volumes, func(v v1.Volume) string { return v.Name })
}

// labels checks that names are DNS labels and that there is one of each.
func labels[T any](kind string, all []T, name func(T) string) error {
	seen := map[string]bool{}
	for _, x := range all {
		if wrong := validation.IsDNS1123Label(name(x)); len(wrong) > 0 {
			return fmt.Errorf("%s name %q: %s", kind, name(x), wrong[0])
		}
		if seen[name(x)] {
			return fmt.Errorf("two %ss have the name %s", kind, name(x))
		}
		seen[name(x)] = true
	}
	return nil
}

// references names a kind of API object that the pod refers to. A static pod may be what the API server
// itself runs in.
func references(spec *v1.PodSpec) string {
	switch {
	case spec.ServiceAccountName != "":
		return "serviceaccounts"
	case len(spec.ImagePullSecrets) > 0:
		return "secrets"
	case len(spec.ResourceClaims) > 0:
		return "resourceclaims"
	}

	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		if kind := environmentReference(c); kind != "" {
			return kind
		}
	}

	for _, v := range spec.Volumes {
		if kind := volumeReference(v.VolumeSource); kind != "" {
			return kind
		}
	}

	return ""
}

func environmentReference(c v1.Container) string {
	for _, from := range c.EnvFrom {
		switch {
		case from.SecretRef != nil:
			return "secrets"
		case from.ConfigMapRef != nil:
			return "configmaps"
		}
	}

	for _, e := range c.Env {
		from := e.ValueFrom
		switch {
		case from == nil:
		case from.SecretKeyRef != nil:
			return "secrets"
		case from.ConfigMapKeyRef != nil:
			return "configmaps"
		}
	}

	return ""
}

func volumeReference(v v1.VolumeSource) string {
	switch {
	case v.ConfigMap != nil:
		return "configmaps (via configmap volumes)"
	case v.Secret != nil:
		return "secrets (via secret volumes)"
	case v.CSI != nil:
		return "csidrivers (via CSI volumes)"
	case v.PersistentVolumeClaim != nil:
		return "persistentvolumeclaims"
	case v.Ephemeral != nil:
		return "persistentvolumeclaims (via ephemeral volumes)"
	case v.Glusterfs != nil:
		return "endpoints (via glusterFS volumes)"
	case v.AzureFile != nil,
		v.ISCSI != nil && v.ISCSI.SecretRef != nil,
		v.CephFS != nil && v.CephFS.SecretRef != nil,
		v.Cinder != nil && v.Cinder.SecretRef != nil,
		v.FlexVolume != nil && v.FlexVolume.SecretRef != nil,
		v.RBD != nil && v.RBD.SecretRef != nil,
		v.ScaleIO != nil && v.ScaleIO.SecretRef != nil,
		v.StorageOS != nil && v.StorageOS.SecretRef != nil:
		return "secrets"

	case v.Projected != nil:
		for _, source := range v.Projected.Sources {
			if source.DownwardAPI == nil {
				return "objects of the API (via projected volumes)"
			}
		}
	}

	return ""
}
