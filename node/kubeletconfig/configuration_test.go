package kubeletconfig

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// lines reads a file of testdata. They were written by a program that linked kubelet 1.37.2: the fields and
// the defaults of v1beta1.KubeletConfiguration.
func lines(t *testing.T, name string) []string {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func TestFieldsAreThoseOfKubelet(t *testing.T) {
	var have []string
	paths("", reflect.TypeFor[Configuration](), &have)
	want := lines(t, "kubelet-1.37.2-fields.txt")
	slices.Sort(have)
	slices.Sort(want)
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
}

// paths are the JSON paths of a type.
func paths(prefix string, t reflect.Type, out *[]string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}

	switch t {
	case reflect.TypeFor[metav1.Duration](), reflect.TypeFor[resource.Quantity](),
		reflect.TypeFor[metav1.Time]():
		*out = append(*out, prefix)
		return
	}

	if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct {
		paths(prefix+"[]", t.Elem(), out)
		return
	}

	if t.Kind() != reflect.Struct {
		*out = append(*out, prefix)
		return
	}

	for field := range t.Fields() {
		path := prefix + "." + jsonName(field)
		paths(strings.Trim(path, "."), field.Type, out)
	}
}

func TestDefaultsAreThoseOfKubelet(t *testing.T) {
	usual := &Configuration{}
	usual.SetDefaults()
	var want, have map[string]any
	if err := json.Unmarshal([]byte(strings.Join(lines(t, "kubelet-1.37.2-defaults.json"), "\n")),
		&want); err != nil {
		t.Fatal(err)
	}

	data, err := json.Marshal(usual)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &have); err != nil {
		t.Fatal(err)
	}

	// Those that the table of fields names, and what kubelet sets elsewhere.
	for _, name := range []string{"cgroupDriver", "containerRuntimeEndpoint", "failCgroupV1",
		"rotateCertificates", "serializeImagePulls",
		"evictionHard", "enableSystemLogQuery", "kind", "apiVersion"} {
		delete(want, name)
		delete(have, name)
	}

	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
}
