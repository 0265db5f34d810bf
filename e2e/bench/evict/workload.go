package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// workload is a pod of a case, the same on each node.
type workload struct {
	name string

	// script is run by a shell, after which the container sleeps; sidecar instead by an init container that
	// goes on. command is run without both.
	script, sidecar string
	command         []string
	image           string // the shell's by default

	resources corev1.ResourceRequirements // of the container with the script
	second    corev1.ResourceRequirements // of another container that sleeps; none if it is empty
	volume    *corev1.EmptyDirVolumeSource
	priority  string // priority class
	grace     int64  // seconds; 2 by default
	tolerates bool   // all taints
	graceful  bool   // it ends with exit code 0 when it is asked to
	gone      bool   // of pods before a case: removed when it has ended
}

// The priority classes of workloads; the second one is there in every cluster.
const (
	importantClass = "evict-bench-important"
	criticalClass  = "system-node-critical"
)

const shellImage = "docker.io/library/busybox:1.37"

// fill writes size MB to a file in a directory.
func fill(dir string, size int) string {
	return fmt.Sprintf("dd if=/dev/zero of=%s/data bs=1000000 count=%d 2>/dev/null", dir, size)
}

// files makes empty files.
func files(dir string, count int) string {
	return fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); >%s/$i; done", count, dir)
}

// logged writes size MB that cannot be compressed to the log.
func logged(size int) string {
	return fmt.Sprintf("head -c %d /dev/urandom | base64", size*1000000*3/4)
}

// hold takes size MB of memory and keeps them: dd waits with a full block for somebody to read it.
func hold(size int) string {
	return fmt.Sprintf("dd if=/dev/zero bs=%d count=1 2>/dev/null | sleep 100000 &", size*1000000)
}

func dirOf(limit string) *corev1.EmptyDirVolumeSource {
	source := &corev1.EmptyDirVolumeSource{}
	if limit != "" {
		source.SizeLimit = new(resource.MustParse(limit))
	}
	return source
}

func memoryOf(limit string) *corev1.EmptyDirVolumeSource {
	source := dirOf(limit)
	source.Medium = corev1.StorageMediumMemory
	return source
}

func request(name corev1.ResourceName, size string) corev1.ResourceRequirements {
	list := corev1.ResourceList{name: resource.MustParse(size)}
	return corev1.ResourceRequirements{Requests: list}
}

func requestOf(size string) corev1.ResourceRequirements {
	return request(corev1.ResourceEphemeralStorage, size)
}

func limits(name corev1.ResourceName, size string) corev1.ResourceRequirements {
	list := corev1.ResourceList{name: resource.MustParse(size)}
	return corev1.ResourceRequirements{Requests: list, Limits: list}
}

// guaranteed has requests and limits of both, so that its pod has that quality of service.
func guaranteed(memory string) corev1.ResourceRequirements {
	list := corev1.ResourceList{
		corev1.ResourceMemory: resource.MustParse(memory),
		corev1.ResourceCPU:    resource.MustParse("100m"),
	}
	return corev1.ResourceRequirements{Requests: list, Limits: list}
}

// pod is the workload on a node, past the scheduler, which would keep it away from a node under pressure.
func (w workload) pod(node string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: w.name},
		Spec: corev1.PodSpec{
			NodeName:                      node,
			RestartPolicy:                 corev1.RestartPolicyNever,
			PriorityClassName:             w.priority,
			TerminationGracePeriodSeconds: new(max(w.grace, 2)),
			AutomountServiceAccountToken:  new(false),
		},
	}

	main := w.container("main", w.script, w.resources)
	if w.sidecar != "" {
		main.Resources = corev1.ResourceRequirements{}
		sidecar := w.container("sidecar", w.sidecar, w.resources)
		sidecar.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		pod.Spec.InitContainers = []corev1.Container{sidecar}
	}

	pod.Spec.Containers = []corev1.Container{main}
	if w.second.Limits != nil {
		pod.Spec.Containers = append(pod.Spec.Containers, w.container("second", "", w.second))
	}

	if w.volume != nil {
		source := corev1.VolumeSource{EmptyDir: w.volume}
		pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: source}}
	}

	if w.tolerates {
		pod.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	}

	return pod
}

func (w workload) container(name, script string, r corev1.ResourceRequirements) corev1.Container {
	command := w.command
	if command == nil {
		code := 3
		if w.graceful {
			code = 0
		}

		// A shell that waits handles a signal at once.
		const wait = "sleep 100000 & while :; do wait; done"
		command = []string{"sh", "-c", fmt.Sprintf("trap 'exit %d' TERM\n%s\n%s", code, script, wait)}
	}

	image := w.image
	if image == "" {
		image = shellImage
	}

	c := corev1.Container{
		Name:            name,
		Image:           image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Command:         command,
		Resources:       r,
	}
	if w.volume != nil {
		c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	}

	return c
}
