package kube_test

import (
	"context"
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/kube/storage"
)

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{"name": name}},
		Data:       map[string]string{"k": value},
	}
}

func TestAnObjectIsCreatedReadChangedAndDeleted(t *testing.T) {
	maps := kube.ConfigMaps(kubetest.Start(t).Client())
	made, err := maps.Create(t.Context(), configMap("m", "1"))
	if err != nil || made.UID == "" || made.Data["k"] != "1" {
		t.Fatalf("created %+v, %v", made, err)
	}
	if _, err := maps.Create(t.Context(), configMap("m", "1")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("created twice: %v", err)
	}

	patch := []byte(`{"data":{"l":"2"}}`)
	patched, err := maps.Patch(t.Context(), "ns", "m", types.MergePatchType, patch)
	if err != nil || patched.Data["k"] != "1" || patched.Data["l"] != "2" {
		t.Errorf("patched %+v, %v", patched, err)
	}

	made.Data["k"] = "3"
	if _, err := maps.Update(t.Context(), made); !apierrors.IsConflict(err) {
		t.Errorf("updated what has changed: %v", err)
	}

	patched.Data["k"] = "3"
	if _, err := maps.Update(t.Context(), patched); err != nil {
		t.Error(err)
	}

	got, err := maps.Get(t.Context(), "ns", "m")
	if err != nil || got.Data["k"] != "3" {
		t.Errorf("got %+v, %v", got, err)
	}

	other := types.UID("other")
	options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}}
	if err := maps.Delete(t.Context(), "ns", "m", options); !apierrors.IsConflict(err) {
		t.Errorf("deleted another object of the name: %v", err)
	}
	if err := maps.Delete(t.Context(), "ns", "m", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := maps.Get(t.Context(), "ns", "m"); !apierrors.IsNotFound(err) {
		t.Errorf("got what was deleted: %v", err)
	}
}

func TestObjectsAreListedByWhatSelectsThem(t *testing.T) {
	server := kubetest.Start(t)
	maps := kube.ConfigMaps(server.Client())
	server.Put(configMap("a", "1"))
	server.Put(configMap("b", "2"))
	for name, options := range map[string]metav1.ListOptions{
		"field": {FieldSelector: "metadata.name=b"},
		"label": {LabelSelector: "name=b"},
	} {
		all, version, err := maps.List(t.Context(), "ns", options)
		if err != nil || len(all) != 1 || all[0].Name != "b" || version == "" {
			t.Errorf("%s: %v at %q, %v", name, all, version, err)
		}
	}

	if all, _, err := maps.List(t.Context(), "", metav1.ListOptions{}); err != nil || len(all) != 2 {
		t.Errorf("all: %v, %v", all, err)
	}
}

func TestAKindWithoutNamespaceHasNoNamespaceInItsPath(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u"}})
	nodes := kube.Nodes(server.Client())
	status := []byte(`{"status":{"phase":"Running"}}`)
	got, err := nodes.Patch(t.Context(), "", "n", types.StrategicMergePatchType, status, "status")
	if err != nil || got.Status.Phase != corev1.NodeRunning {
		t.Errorf("%+v, %v", got, err)
	}

	about, err := nodes.Metadata(t.Context(), "", "n")
	if err != nil || about.UID != "u" {
		t.Errorf("metadata %+v, %v", about, err)
	}
	if _, err := nodes.Metadata(t.Context(), "", "none"); !apierrors.IsNotFound(err) {
		t.Errorf("metadata of no node: %v", err)
	}
}

func TestApplyCreatesAndChanges(t *testing.T) {
	server := kubetest.Start(t)
	capacities := storage.Capacities(server.Client())
	for _, class := range []string{"a", "b"} {
		object, err := json.Marshal(map[string]any{
			"apiVersion":       "storage.k8s.io/v1",
			"kind":             "CSIStorageCapacity",
			"metadata":         map[string]any{"namespace": "ns", "name": "c"},
			"storageClassName": class,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := capacities.Apply(t.Context(), "ns", "c", "test", object); err != nil {
			t.Fatal(err)
		}

		stored := kubetest.Get[storagev1.CSIStorageCapacity](server, "csistoragecapacities", "ns", "c")
		if stored == nil || stored.StorageClassName != class {
			t.Errorf("stored %+v", stored)
		}
	}
}

// The Node authorizer learns of a pod some milliseconds after the node.
func TestForbiddenIsTriedAgainForAWhile(t *testing.T) {
	server := kubetest.Start(t)
	maps := kube.ConfigMaps(server.Client())
	server.Put(configMap("m", "1"))
	server.FailOn("get configmaps", 3, apierrors.NewForbidden(corev1.Resource("configmaps"), "m", nil))
	read := func() error {
		_, err := maps.Get(t.Context(), "ns", "m")
		return err
	}
	if err := kube.RetryForbidden(t.Context(), read); err != nil {
		t.Errorf("forbidden three times: %v", err)
	}

	calls := 0
	gone := apierrors.NewNotFound(corev1.Resource("configmaps"), "m")
	err := kube.RetryForbidden(t.Context(), func() error {
		calls++
		return gone
	})
	if !apierrors.IsNotFound(err) || calls != 1 {
		t.Errorf("another error: %v after %d calls", err, calls)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	forbidden := apierrors.NewForbidden(corev1.Resource("configmaps"), "m", nil)
	if err := kube.RetryForbidden(ended, func() error { return forbidden }); !apierrors.IsForbidden(err) {
		t.Errorf("cancelled: %v", err)
	}
}
