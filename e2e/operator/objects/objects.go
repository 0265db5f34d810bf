// Package objects makes the Kubernetes objects of an EtcdCluster: Services and the PodDisruptionBudget, and
// for each member a claim and a pod of the same name. All have the cluster as their owner, so that they go
// with it.
package objects

import (
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/trivet-node/trivet/e2e/operator/v1alpha1"
)

// Labels of the objects.
const (
	nameLabel    = "app.kubernetes.io/name"
	clusterLabel = "etcd.trivet.dev/cluster"

	// VersionLabel of a pod has the version of etcd that it was made for.
	VersionLabel = "etcd.trivet.dev/version"
)

// Voting is the readiness gate of a pod: a learner answers no client, so that no Service may lead to it.
const Voting corev1.PodConditionType = "etcd.trivet.dev/voting"

// The ports of a member.
const (
	clientPort = 2379
	peerPort   = 2380
	healthPort = 2381
)

// Set makes the objects of one cluster.
type Set struct {
	Cluster *v1alpha1.EtcdCluster

	// Image of etcd, without its tag, which is v and the version.
	Image string
}

// Labels are those that the pods and claims of members have in common.
func (s Set) Labels() map[string]string {
	return map[string]string{nameLabel: "etcd", clusterLabel: s.Cluster.Name}
}

func (s Set) meta(name string) metav1.ObjectMeta {
	kind := v1alpha1.GroupVersion.WithKind("EtcdCluster")
	return metav1.ObjectMeta{
		Name:            name,
		Namespace:       s.Cluster.Namespace,
		Labels:          s.Labels(),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s.Cluster, kind)},
	}
}

// PeerURL is where the other members reach a member.
func (s Set) PeerURL(member string) string { return s.url(member, peerPort) }

// ClientURL is where a pod's etcd serves clients.
func ClientURL(podIP string) string {
	if strings.Contains(podIP, ":") {
		podIP = "[" + podIP + "]"
	}
	return fmt.Sprintf("http://%s:%d", podIP, clientPort)
}

func (s Set) url(member string, port int) string {
	return fmt.Sprintf("http://%s.%s.%s.svc:%d", member, s.peers(), s.Cluster.Namespace, port)
}

func (s Set) peers() string { return s.Cluster.Name + "-peers" }

// Clients is the Service of the voting members that are ready, with the cluster's name.
func (s Set) Clients() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: s.meta(s.Cluster.Name),
		Spec: corev1.ServiceSpec{
			Selector: s.Labels(),
			Ports:    []corev1.ServicePort{{Name: "client", Port: clientPort}},
		},
	}
}

// Peers is the Service that gives each member a name, also before it is ready: it becomes ready by what the
// others tell it.
func (s Set) Peers() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: s.meta(s.peers()),
		Spec: corev1.ServiceSpec{
			ClusterIP:                corev1.ClusterIPNone,
			PublishNotReadyAddresses: true,
			Selector:                 s.Labels(),
			Ports: []corev1.ServicePort{
				{Name: "client", Port: clientPort},
				{Name: "peer", Port: peerPort},
			},
		},
	}
}

// Budget lets one member be evicted at a time. It counts by the scale subresource of the cluster.
func (s Set) Budget() *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: s.meta(s.Cluster.Name),
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: new(intstr.FromInt32(1)),
			Selector:       &metav1.LabelSelector{MatchLabels: s.Labels()},
		},
	}
}

// Claim is that of a member's volume.
func (s Set) Claim(member string) *corev1.PersistentVolumeClaim {
	storage := s.Cluster.Spec.Storage
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: s.meta(member),
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: storage.ClassName,
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: storage.Size},
			},
		},
	}
}

func (s Set) image(version string) string { return s.Image + ":v" + version }

func with(labels map[string]string, key, value string) map[string]string {
	out := maps.Clone(labels)
	out[key] = value
	return out
}
