package objects

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	volumeDir = "/var/lib/etcd"
	user      = 65532
)

// dataDir is not the root of the volume, which has lost+found on some file systems.
var dataDir = path.Join(volumeDir, "data")

// Pod is that of a member. members are the names of all members, itself among them; with begins it makes a
// cluster of its own. A member that has data goes by what it has.
func (s Set) Pod(member string, members []string, begins, bound bool) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: s.meta(member),
		Spec: corev1.PodSpec{
			Hostname:                      member,
			Subdomain:                     s.peers(),
			SecurityContext:               unprivileged(),
			TerminationGracePeriodSeconds: new(int64(10)),
			ReadinessGates:                []corev1.PodReadinessGate{{ConditionType: Voting}},
			Containers:                    []corev1.Container{s.etcd(member, members, begins)},
			Volumes:                       []corev1.Volume{claimVolume("data", member)},
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
		},
	}
	pod.Labels = with(pod.Labels, VersionLabel, s.Cluster.Spec.Version)

	// A volume that is bound has decided on the node.
	if !bound {
		pod.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew:           1,
			TopologyKey:       corev1.LabelHostname,
			WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector:     &metav1.LabelSelector{MatchLabels: s.Labels()},
			NodeTaintsPolicy:  new(corev1.NodeInclusionPolicyHonor),
		}}
	}

	return pod
}

func (s Set) etcd(member string, members []string, begins bool) corev1.Container {
	state := "existing"
	if begins {
		state = "new"
	}

	return corev1.Container{
		Name:    "etcd",
		Image:   s.image(s.Cluster.Spec.Version),
		Command: []string{"etcd"},
		Args: []string{
			"--name=" + member,
			"--data-dir=" + dataDir,
			"--listen-peer-urls=" + everywhere(peerPort),
			"--listen-client-urls=" + everywhere(clientPort),
			"--listen-metrics-urls=" + everywhere(healthPort),
			"--initial-advertise-peer-urls=" + s.PeerURL(member),
			"--advertise-client-urls=" + s.url(member, clientPort),
			"--initial-cluster=" + s.initialCluster(members),
			"--initial-cluster-state=" + state,
			"--initial-cluster-token=" + string(s.Cluster.UID),
		},
		Ports: []corev1.ContainerPort{
			{Name: "client", ContainerPort: clientPort},
			{Name: "peer", ContainerPort: peerPort},
			{Name: "health", ContainerPort: healthPort},
		},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{
				corev1.ResourceCPU:    resource.MustParse("50m"),
				corev1.ResourceMemory: resource.MustParse("64Mi"),
			},
		},
		StartupProbe:    probe("/livez", 1, 300),
		LivenessProbe:   probe("/livez", 5, 6),
		ReadinessProbe:  probe("/readyz", 1, 3),
		SecurityContext: locked(),
		VolumeMounts:    []corev1.VolumeMount{{Name: "data", MountPath: volumeDir}},
	}
}

func everywhere(port int) string { return fmt.Sprintf("http://0.0.0.0:%d", port) }

func (s Set) initialCluster(members []string) string {
	var all []string
	for _, m := range slices.Sorted(slices.Values(members)) {
		all = append(all, m+"="+s.PeerURL(m))
	}
	return strings.Join(all, ",")
}

func probe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("health")},
		},
		PeriodSeconds:    period,
		TimeoutSeconds:   3,
		FailureThreshold: failures,
	}
}

func unprivileged() *corev1.PodSecurityContext {
	return &corev1.PodSecurityContext{
		RunAsNonRoot:        new(true),
		RunAsUser:           new(int64(user)),
		RunAsGroup:          new(int64(user)),
		FSGroup:             new(int64(user)),
		FSGroupChangePolicy: new(corev1.FSGroupChangeOnRootMismatch),
		SeccompProfile:      &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

func locked() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

func claimVolume(name, claim string) corev1.Volume {
	return corev1.Volume{
		Name: name,
		VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		},
	}
}
