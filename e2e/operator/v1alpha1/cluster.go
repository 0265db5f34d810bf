// Package v1alpha1 has the kinds EtcdCluster and EtcdSnapshot of the group etcd.trivet.dev, as
// config/crds.yaml defines them.
package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Conditions of an EtcdCluster.
const (
	// Ready says that each member is healthy, and that number and version are what the specification says.
	Ready = "Ready"

	// Available says that a majority of the members answers, so that clients can read and write.
	Available = "Available"
)

// EtcdCluster is an etcd cluster whose members each have a volume. Deleting it deletes the volumes.
type EtcdCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EtcdClusterSpec   `json:"spec"`
	Status EtcdClusterStatus `json:"status,omitempty"`
}

// EtcdClusterSpec is what the user wants.
type EtcdClusterSpec struct {
	// Replicas is the number of voting members: 1, 3, 5 or 7.
	Replicas int32 `json:"replicas"`

	// Version of etcd, without a v. It never goes down.
	Version string `json:"version"`

	// Storage is of each member's volume, and never changes.
	Storage Storage `json:"storage"`

	// RestoreFrom is what the first member starts with; the cluster is empty without it.
	RestoreFrom *Restore `json:"restoreFrom,omitempty"`
}

// Storage describes a volume.
type Storage struct {
	Size resource.Quantity `json:"size"`

	// ClassName of the volume; the default class without it.
	ClassName *string `json:"className,omitempty"`
}

// Restore names where the data of a new cluster comes from.
type Restore struct {
	// Snapshot is the name of a complete EtcdSnapshot in the same namespace.
	Snapshot string `json:"snapshot"`
}

// EtcdClusterStatus is what the operator has seen.
type EtcdClusterStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// ClusterID is etcd's, in hexadecimal digits. A cluster that has one is never made again: what its
	// members have lost, they have lost.
	ClusterID string `json:"clusterID,omitempty"`

	// Replicas is the number of voting members, and ReadyReplicas of those that are ready.
	Replicas      int32 `json:"replicas"`
	ReadyReplicas int32 `json:"readyReplicas"`

	// Selector finds the pods, for the scale subresource.
	Selector string `json:"selector,omitempty"`

	// Version is the lowest that a member runs.
	Version string `json:"version,omitempty"`

	Members    []Member           `json:"members,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Member is one of etcd's members.
type Member struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Node    string `json:"node,omitempty"`
	Version string `json:"version,omitempty"`
	Learner bool   `json:"learner,omitempty"`
	Leader  bool   `json:"leader,omitempty"`
	Ready   bool   `json:"ready"`
}

// EtcdClusterList is a list of them.
type EtcdClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EtcdCluster `json:"items"`
}
