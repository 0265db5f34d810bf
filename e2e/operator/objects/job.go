package objects

import (
	"path"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/e2e/operator/v1alpha1"
)

const snapshotDir = "/snapshots"

// SnapshotFile is the path of a snapshot on its claim.
func SnapshotFile(snapshot *v1alpha1.EtcdSnapshot) string { return snapshot.Name + ".db" }

// SnapshotJob writes a snapshot of the cluster, and then reads it. etcdctl renames the file when it is
// complete, so that the Job may run again.
func (s Set) SnapshotJob(snapshot *v1alpha1.EtcdSnapshot) *batchv1.Job {
	file := path.Join(snapshotDir, SnapshotFile(snapshot))
	image := s.image(s.Cluster.Status.Version)
	mounts := []corev1.VolumeMount{{Name: "snapshots", MountPath: snapshotDir}}

	save := tool("save", image, mounts,
		"etcdctl", "--endpoints="+s.clients(), "snapshot", "save", file)
	check := tool("check", image, mounts, "etcdutl", "snapshot", "status", file, "--write-out=json")
	kind := v1alpha1.GroupVersion.WithKind("EtcdSnapshot")
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name:            snapshot.Name + "-snapshot",
			Namespace:       snapshot.Namespace,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(snapshot, kind)},
		},
		Spec: batchv1.JobSpec{
			BackoffLimit: new(int32(4)),
			Template: onceAndAway(corev1.PodSpec{
				InitContainers: []corev1.Container{save},
				Containers:     []corev1.Container{check},
				Volumes:        []corev1.Volume{claimVolume("snapshots", snapshot.Spec.Claim)},
			}),
		},
	}
}

// RestoreName is that of the Job that restores the first member.
func (s Set) RestoreName() string { return s.Cluster.Name + "-restore" }

// RestoreJob writes the data of the first member from a snapshot. It needs an empty volume, so it runs once:
// after a failure there is another volume.
func (s Set) RestoreJob(member string, snapshot *v1alpha1.EtcdSnapshot) *batchv1.Job {
	mounts := []corev1.VolumeMount{
		{Name: "snapshots", MountPath: snapshotDir, ReadOnly: true},
		{Name: "data", MountPath: volumeDir},
	}
	restore := tool("restore", s.image(s.Cluster.Spec.Version), mounts,
		"etcdutl", "snapshot", "restore", path.Join(snapshotDir, snapshot.Status.File),
		"--data-dir="+dataDir,
		"--name="+member,
		"--initial-cluster="+s.initialCluster([]string{member}),
		"--initial-cluster-token="+string(s.Cluster.UID),
		"--initial-advertise-peer-urls="+s.PeerURL(member),
	)

	return &batchv1.Job{
		ObjectMeta: s.meta(s.RestoreName()),
		Spec: batchv1.JobSpec{
			BackoffLimit: new(int32(0)),
			Template: onceAndAway(corev1.PodSpec{
				Containers: []corev1.Container{restore},
				Volumes: []corev1.Volume{
					claimVolume("snapshots", snapshot.Spec.Claim),
					claimVolume("data", member),
				},
			}),
		},
	}
}

func (s Set) clients() string {
	return "http://" + s.Cluster.Name + "." + s.Cluster.Namespace + ".svc:2379"
}

func tool(name, image string, mounts []corev1.VolumeMount, command ...string) corev1.Container {
	return corev1.Container{
		Name:                     name,
		Image:                    image,
		Command:                  command,
		SecurityContext:          locked(),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		VolumeMounts:             mounts,
	}
}

// onceAndAway is the template of a pod that never runs again where it has run.
func onceAndAway(spec corev1.PodSpec) corev1.PodTemplateSpec {
	spec.RestartPolicy = corev1.RestartPolicyNever
	spec.SecurityContext = unprivileged()
	spec.AutomountServiceAccountToken = new(false)
	spec.EnableServiceLinks = new(false)
	return corev1.PodTemplateSpec{Spec: spec}
}
