package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Conditions of an EtcdSnapshot. Neither is there while the snapshot is being made.
const (
	Complete = "Complete"
	Failed   = "Failed"
)

// EtcdSnapshot is a snapshot of an EtcdCluster, taken once, in a file of a claim.
type EtcdSnapshot struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EtcdSnapshotSpec   `json:"spec"`
	Status EtcdSnapshotStatus `json:"status,omitempty"`
}

// EtcdSnapshotSpec never changes.
type EtcdSnapshotSpec struct {
	// Cluster is the name of the EtcdCluster, and Claim of the PersistentVolumeClaim, both in the same
	// namespace.
	Cluster string `json:"cluster"`
	Claim   string `json:"claim"`
}

// EtcdSnapshotStatus is what has become of it.
type EtcdSnapshotStatus struct {
	// File is its path on the claim.
	File string `json:"file,omitempty"`

	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// EtcdSnapshotList is a list of them.
type EtcdSnapshotList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EtcdSnapshot `json:"items"`
}
