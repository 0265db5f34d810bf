package objects

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func container(configMap, secret string) v1.Container {
	return v1.Container{
		Env: []v1.EnvVar{
			{Name: "PLAIN", Value: "1"},
			{ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{
				LocalObjectReference: v1.LocalObjectReference{Name: configMap},
			}}},
		},
		EnvFrom: []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{
			LocalObjectReference: v1.LocalObjectReference{Name: secret},
		}}},
	}
}

func source(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }

// everywhere is a pod that names objects in all the places where a pod may name some.
func everywhere() *v1.Pod {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}}
	pod.Spec.ImagePullSecrets = []v1.LocalObjectReference{source("pull"), source("")}
	pod.Spec.InitContainers = []v1.Container{container("init-map", "init-secret")}
	pod.Spec.Containers = []v1.Container{container("map", "secret"), container("map", "secret")}
	pod.Spec.EphemeralContainers = []v1.EphemeralContainer{
		{EphemeralContainerCommon: v1.EphemeralContainerCommon{
			Env: []v1.EnvVar{{ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{
				LocalObjectReference: source("debug-secret"),
			}}}},
			EnvFrom: []v1.EnvFromSource{
				{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: source("debug-map")}},
			},
		}},
	}

	for _, v := range []v1.VolumeSource{
		{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: source("volume-map")}},
		{Secret: &v1.SecretVolumeSource{SecretName: "volume-secret"}},
		{CSI: &v1.CSIVolumeSource{NodePublishSecretRef: new(source("csi-secret"))}},
		{EmptyDir: &v1.EmptyDirVolumeSource{}},
		{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
			{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: source("projected-map")}},
			{Secret: &v1.SecretProjection{LocalObjectReference: source("projected-secret")}},
		}}},
	} {
		pod.Spec.Volumes = append(pod.Spec.Volumes, v1.Volume{VolumeSource: v})
	}

	return pod
}

// sorted returns the names, all of which must be in the pod's namespace.
func sorted(t *testing.T, found names) []string {
	t.Helper()
	var out []string
	for name := range found {
		if name.Namespace != "ns" {
			t.Errorf("%s is of another namespace", name)
		}
		out = append(out, name.Name)
	}

	slices.Sort(out)
	return out
}

func TestReferencesAreFoundWhereverAPodMayHaveThem(t *testing.T) {
	got := references(everywhere())
	want := []string{"debug-map", "init-map", "map", "projected-map", "volume-map"}
	if maps := sorted(t, got.configMaps); !slices.Equal(maps, want) {
		t.Errorf("config maps %q, want %q", maps, want)
	}

	want = []string{
		"csi-secret",
		"debug-secret",
		"init-secret",
		"projected-secret",
		"pull",
		"secret",
		"volume-secret",
	}
	if secrets := sorted(t, got.secrets); !slices.Equal(secrets, want) {
		t.Errorf("secrets %q, want %q", secrets, want)
	}
}
