package check

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// bases are the directories with a kustomization.
func bases(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"../*/kustomization.yaml", "../*/*/kustomization.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			found = append(found, filepath.Dir(file))
		}
	}
	if len(found) < 3 {
		t.Fatalf("bases %q, want those of cni and csi at least", found)
	}
	return found
}

// render is what kubectl apply -k applies.
func render(t *testing.T, base string) []runtime.Object {
	t.Helper()
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), base)
	if err != nil {
		t.Fatalf("%s: %v", base, err)
	}

	text, err := rendered.AsYaml()
	if err != nil {
		t.Fatal(err)
	}

	return decode(t, text)
}

// decode decodes objects. Fields that Kubernetes does not have are errors, and so are those that are there
// twice.
func decode(t *testing.T, text []byte) (objects []runtime.Object) {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	for documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text))); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}

		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		objects = append(objects, object)
	}
}

func TestBasesRenderToObjectsOfKubernetes(t *testing.T) {
	for _, base := range bases(t) {
		t.Run(base, func(t *testing.T) {
			seen := map[string]bool{}
			for _, object := range render(t, base) {
				accessor, err := meta.Accessor(object)
				if err != nil {
					t.Fatal(err)
				}

				name := object.GetObjectKind().GroupVersionKind().Kind + " " + accessor.GetNamespace() + "/" +
					accessor.GetName()
				if seen[name] {
					t.Errorf("%s is there twice", name)
				}
				seen[name] = true
			}
		})
	}
}

// TestBasesHaveAllYAMLOfTheirDirectory finds a file that no base names.
func TestBasesHaveAllYAMLOfTheirDirectory(t *testing.T) {
	for _, base := range bases(t) {
		list, err := os.ReadFile(filepath.Join(base, "kustomization.yaml"))
		if err != nil {
			t.Fatal(err)
		}

		files, err := filepath.Glob(filepath.Join(base, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}

		for _, file := range files {
			name := filepath.Base(file)
			if name != "kustomization.yaml" && !strings.Contains(string(list), "- "+name+"\n") {
				t.Errorf("%s does not name %s", base, name)
			}
		}
	}
}

func TestDaemonSetsRunAsTheAccountThatHasThePermissions(t *testing.T) {
	for _, base := range bases(t) {
		objects := render(t, base)
		for _, object := range objects {
			set, ok := object.(*appsv1.DaemonSet)
			if ok && !bound(objects, set.Namespace, set.Spec.Template.Spec.ServiceAccountName) {
				t.Errorf("%s: no role is bound to the account of DaemonSet %s", base, set.Name)
			}
		}
	}
}

func bound(objects []runtime.Object, namespace, account string) bool {
	return slices.ContainsFunc(objects, func(object runtime.Object) bool {
		binding, ok := object.(*rbacv1.ClusterRoleBinding)
		return ok && slices.ContainsFunc(binding.Subjects, func(s rbacv1.Subject) bool {
			return s.Kind == "ServiceAccount" && s.Namespace == namespace && s.Name == account
		})
	})
}

// What is left out is set to a default by the API server, and nobody knows whether it was meant.
func TestTheCSIDriverSaysWhatItNeeds(t *testing.T) {
	for _, o := range render(t, "../csi") {
		d, ok := o.(*storagev1.CSIDriver)
		if !ok {
			continue
		}

		s := d.Spec
		for field, value := range map[string]*bool{
			"attachRequired":    s.AttachRequired,
			"podInfoOnMount":    s.PodInfoOnMount,
			"requiresRepublish": s.RequiresRepublish,
			"seLinuxMount":      s.SELinuxMount,
		} {
			if value == nil || *value {
				t.Errorf("%s is not false", field)
			}
		}
		if s.StorageCapacity == nil || !*s.StorageCapacity || s.FSGroupPolicy == nil ||
			*s.FSGroupPolicy != storagev1.FileFSGroupPolicy || len(s.VolumeLifecycleModes) != 1 {
			t.Errorf("storageCapacity, fsGroupPolicy or volumeLifecycleModes: %+v", s)
		}
		return
	}
	t.Error("there is no CSIDriver")
}

func TestNodesThatShareADiskHaveAPartOfItEach(t *testing.T) {
	for _, object := range render(t, "../kind/csi") {
		set, ok := object.(*appsv1.DaemonSet)
		if !ok {
			continue
		}
		if args := set.Spec.Template.Spec.Containers[0].Args; !slices.Contains(args, "--pool-size=10Gi") {
			t.Errorf("arguments %q", args)
		}
		return
	}
	t.Error("there is no DaemonSet")
}

// TestAFieldThatDoesNotExistIsFound is of the check itself.
func TestAFieldThatDoesNotExistIsFound(t *testing.T) {
	const text = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x}\nautomountToken: false\n"
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	if _, _, err := decoder.Decode([]byte(text), nil, nil); err == nil {
		t.Error("no error")
	}
}
