package podenv_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/trivet-node/trivet/node/podenv"
)

type source struct {
	maps     map[string]*v1.ConfigMap
	secrets  map[string]*v1.Secret
	services map[string][]*v1.Service

	// unheard means that the API server has not listed the services yet.
	unheard bool
}

func (s source) ConfigMap(_ context.Context, _, name string) (*v1.ConfigMap, error) {
	if m := s.maps[name]; m != nil {
		return m, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

func (s source) Secret(_ context.Context, _, name string) (*v1.Secret, error) {
	if m := s.secrets[name]; m != nil {
		return m, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func (s source) Services(_ context.Context, ns string, wait bool) ([]*v1.Service, error) {
	if wait && s.unheard {
		return nil, errors.New("the API server has not answered yet")
	}
	return s.services[ns], nil
}

func TestStaticPodsTakeWhatServicesAreKnown(t *testing.T) {
	r := podenv.Request{
		Pod:       &v1.Pod{},
		Container: &v1.Container{Env: []v1.EnvVar{{Name: "A", Value: "1"}}},
		Source:    source{unheard: true},
	}
	if _, err := podenv.Make(t.Context(), r); err == nil {
		t.Error("a pod of the API began without the services of its cluster")
	}

	r.Static = true
	if env, err := podenv.Make(t.Context(), r); err != nil || len(env) != 1 {
		t.Errorf("static pod: environment %v, error %v", env, err)
	}
}

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)"}
	lookup := func(n string) (string, bool) { v, ok := values[n]; return v, ok }
	for in, want := range map[string]string{
		"":         "",
		"x":        "x",
		"$(A)":     "1",
		"$$(A)":    "$(A)",
		"$(B)":     "$(A)",
		"$(C)":     "$(C)",
		"$":        "$",
		"a$":       "a$",
		"$(A":      "$(A",
		"$x$(A)$":  "$x1$",
		"$$$(A)":   "$1",
		"$((A))":   "$((A))",
		"$()":      "$()",
		"$(A)$(A)": "11",
	} {
		if got := podenv.Expand(in, lookup); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$($")
	f.Fuzz(func(t *testing.T, s string) {
		got := podenv.Expand(s, func(string) (string, bool) { return "", false })
		if !strings.Contains(s, "$$") && got != s {
			t.Errorf("Expand(%q) = %q without variables", s, got)
		}
	})
}

// everySource is a container with a variable of each kind.
var everySource = v1.Container{
	Name: "c",
	Resources: v1.ResourceRequirements{
		Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1250m")},
	},
	EnvFrom: []v1.EnvFromSource{
		{Prefix: "P_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: ref("m")}},
		{SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("gone"), Optional: new(true)}},
	},
	Env: []v1.EnvVar{
		{Name: "X", Value: "$(P_k)-$(S_SERVICE_HOST)"},
		{Name: "P_k", Value: "over"},
		{Name: "NAME", ValueFrom: field("metadata.name")},
		{Name: "LABEL", ValueFrom: field("metadata.labels['a']")},
		{Name: "IP", ValueFrom: field("status.podIPs")},
		{Name: "CPU", ValueFrom: &v1.EnvVarSource{
			ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.cpu"},
		}},
		{Name: "MEM", ValueFrom: &v1.EnvVarSource{
			ResourceFieldRef: &v1.ResourceFieldSelector{
				Resource: "limits.memory",
				Divisor:  resource.MustParse("1Mi"),
			},
		}},
		{Name: "SECRET", ValueFrom: &v1.EnvVarSource{
			SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: ref("s"), Key: "k"},
		}},
		{Name: "NONE", ValueFrom: &v1.EnvVarSource{
			ConfigMapKeyRef: &v1.ConfigMapKeySelector{
				LocalObjectReference: ref("m"),
				Key:                  "no",
				Optional:             new(true),
			},
		}},
	},
}

func ref(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }

func field(path string) *v1.EnvVarSource {
	return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}
}

func TestMake(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name:      "p",
		Namespace: "ns",
		UID:       "u",
		Labels:    map[string]string{"b": "2", "a": "1"},
	}}
	pod.Spec.Containers = []v1.Container{everySource}

	service := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "s"},
		Spec:       v1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []v1.ServicePort{{Port: 80}}},
	}
	src := source{
		maps:     map[string]*v1.ConfigMap{"m": {Data: map[string]string{"k": "v"}}},
		secrets:  map[string]*v1.Secret{"s": {Data: map[string][]byte{"k": []byte("hidden")}}},
		services: map[string][]*v1.Service{"ns": {service}},
	}

	got, err := podenv.Make(t.Context(), podenv.Request{
		Pod:       pod,
		Container: &pod.Spec.Containers[0],
		PodIPs:    []string{"10.1.1.1", "fd00::1"},
		Source:    src,
		Node: podenv.Node{
			Name:        "n",
			Allocatable: v1.ResourceList{v1.ResourceMemory: resource.MustParse("3Mi")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}

	want := []podenv.Variable{
		{"S_PORT", "tcp://10.0.0.1:80"},
		{"S_PORT_80_TCP", "tcp://10.0.0.1:80"},
		{"S_PORT_80_TCP_ADDR", "10.0.0.1"},
		{"S_PORT_80_TCP_PORT", "80"},
		{"S_PORT_80_TCP_PROTO", "tcp"},
		{"S_SERVICE_HOST", "10.0.0.1"},
		{"S_SERVICE_PORT", "80"},
		{"P_k", "over"},
		{"X", "v-10.0.0.1"},
		{"NAME", "p"},
		{"LABEL", "1"},
		{"IP", "10.1.1.1,fd00::1"},
		{"CPU", "2"},
		{"MEM", "3"},
		{"SECRET", "hidden"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestMissingReferenceIsNamed(t *testing.T) {
	secret := &v1.SecretKeySelector{LocalObjectReference: ref("gone"), Key: "k"}
	c := v1.Container{
		Name: "c",
		Env:  []v1.EnvVar{{Name: "X", ValueFrom: &v1.EnvVarSource{SecretKeyRef: secret}}},
	}

	_, err := podenv.Make(t.Context(), podenv.Request{Pod: &v1.Pod{}, Container: &c, Source: source{}})
	if err == nil || !strings.Contains(err.Error(), `secret "gone" not found`) {
		t.Errorf("error %v", err)
	}
}

func TestParseFile(t *testing.T) {
	got, err := podenv.ParseFile([]byte("# comment\n\nA='1 $(x)'\nB='two\nlines'\nC=plain\n D='x' # why\n"))
	if err != nil {
		t.Fatal(err)
	}

	if d := cmp.Diff(map[string]string{
		"A": "1 $(x)",
		"B": "two\nlines",
		"C": "plain",
		"D": "x",
	}, got); d != "" {
		t.Error(d)
	}

	for _, bad := range []string{"A", "=x", "A='x", "A='x'y", "A B='x'", `A="x"`} {
		if _, err := podenv.ParseFile([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte("A='1'\nB='2'"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = podenv.ParseFile(data) })
}
