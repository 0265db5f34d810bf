package v1alpha1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// DeepCopyInto copies all that a reader of the copy may change.
func (c *EtcdCluster) DeepCopyInto(out *EtcdCluster) {
	*out = *c
	c.ObjectMeta.DeepCopyInto(&out.ObjectMeta)

	out.Spec.Storage.Size = c.Spec.Storage.Size.DeepCopy()
	if c.Spec.Storage.ClassName != nil {
		out.Spec.Storage.ClassName = new(*c.Spec.Storage.ClassName)
	}
	if c.Spec.RestoreFrom != nil {
		out.Spec.RestoreFrom = new(*c.Spec.RestoreFrom)
	}

	out.Status.Members = slices.Clone(c.Status.Members)
	out.Status.Conditions = copyConditions(c.Status.Conditions)
}

// DeepCopy is a copy that shares nothing.
func (c *EtcdCluster) DeepCopy() *EtcdCluster {
	out := new(EtcdCluster)
	c.DeepCopyInto(out)
	return out
}

// DeepCopyObject is DeepCopy for who does not know the kind.
func (c *EtcdCluster) DeepCopyObject() runtime.Object { return c.DeepCopy() }

// DeepCopyObject copies the list and its objects.
func (l *EtcdClusterList) DeepCopyObject() runtime.Object {
	out := &EtcdClusterList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	for _, item := range l.Items {
		out.Items = append(out.Items, *item.DeepCopy())
	}
	return out
}

// DeepCopy is a copy that shares nothing.
func (s *EtcdSnapshot) DeepCopy() *EtcdSnapshot {
	out := new(*s)
	s.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Status.Conditions = copyConditions(s.Status.Conditions)
	return out
}

// DeepCopyObject is DeepCopy for who does not know the kind.
func (s *EtcdSnapshot) DeepCopyObject() runtime.Object { return s.DeepCopy() }

// DeepCopyObject copies the list and its objects.
func (l *EtcdSnapshotList) DeepCopyObject() runtime.Object {
	out := &EtcdSnapshotList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	for _, item := range l.Items {
		out.Items = append(out.Items, *item.DeepCopy())
	}
	return out
}

func copyConditions(conditions []metav1.Condition) []metav1.Condition {
	var out []metav1.Condition
	for _, c := range conditions {
		out = append(out, *c.DeepCopy())
	}
	return out
}
