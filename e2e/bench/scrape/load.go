package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/internal/retry"
)

// loadNamespace has the pods of both nodes. Their names end with that of their node.
const loadNamespace = "scrape"

// startLimit is how long the pods of a node may take until all of them are ready.
const startLimit = 5 * time.Minute

// work is a pod that uses something at a rate that does not depend on how fast the machine is.
type work struct {
	name, script string

	// served: it listens on port 8080 and is probed there; limits are of the container.
	served bool
	limits corev1.ResourceList

	// volume is mounted on /v.
	volume corev1.VolumeSource
}

// works are those of a node: processor time up to a limit, memory of its own, a disk, network both ways, and
// a volume with something in it.
func works(node string) []work {
	scratch := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	claimed := corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimOf(node)},
	}

	const (
		hold  = `x=$(head -c 48000000 /dev/zero | tr '\0' x); while :; do sleep 9; done`
		write = "dd if=/dev/zero of=/tmp/layer bs=1M count=16; " +
			"while :; do dd if=/dev/zero of=/v/x bs=1M count=4 conv=fsync; sleep 1; done"
		serve = "dd if=/dev/zero of=/tmp/f bs=64k count=1; exec busybox httpd -f -p 8080 -h /tmp"
		fetch = "while :; do wget -q -O /dev/null http://%s/f; sleep 0.2; done"
		keep  = "dd if=/dev/zero of=/v/x bs=1M count=32; while :; do sleep 9; done"
	)

	return []work{
		{name: "burn", script: "while :; do :; done", limits: cpuLimit("100m")},
		{name: "hold", script: hold},
		{name: "write", script: write, volume: scratch},
		{name: "serve", script: serve, served: true},
		{name: "fetch", script: fmt.Sprintf(fetch, serviceOf(node))},
		{name: "keep", script: keep, volume: claimed},
	}
}

func cpuLimit(amount string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(amount)}
}

func claimOf(node string) string   { return "keep-" + node }
func serviceOf(node string) string { return "serve-" + node }

// start brings both nodes to the number of pods: those that work, and idle ones. It returns when all are
// ready.
func (r *comparison) start(ctx context.Context) error {
	for _, t := range r.targets {
		working := works(t.name)
		if err := r.shared(ctx, t.name); err != nil {
			return err
		}

		for _, w := range working {
			pods := r.Client.CoreV1().Pods(loadNamespace)
			_, err := pods.Create(ctx, w.pod(t.name), metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
		}

		// The API server ends a watch that falls behind by more pods.
		idle := bench.Names("idle-"+t.name, max(0, r.pods-len(working)))
		for some := range slices.Chunk(idle, 30) {
			if err := r.Start(ctx, t.name, some); err != nil {
				return fmt.Errorf("idle pods on %s: %w", t.name, err)
			}
		}
	}

	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()

	return retry.Until(ctx, retry.Backoff{First: time.Second, Max: time.Second}, r.allReady)
}

// shared makes the claim and the Service of a node's pods.
func (r *comparison) shared(ctx context.Context, node string) error {
	class := "trivet"
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: claimOf(node)},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("256Mi")},
			},
		},
	}

	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: serviceOf(node)},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"serves": node},
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}

	core := r.Client.CoreV1()
	_, err := core.PersistentVolumeClaims(loadNamespace).Create(ctx, claim, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}

	_, err = core.Services(loadNamespace).Create(ctx, service, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}

	return nil
}

func (w work) pod(node string) *corev1.Pod {
	grace := int64(1)
	container := corev1.Container{
		Name:            "main",
		Image:           "docker.io/trivet/demo:1",
		ImagePullPolicy: corev1.PullIfNotPresent,
		Command:         []string{"sh", "-c", "trap 'exit 0' TERM; " + w.script + " 2>/dev/null"},
		Resources:       corev1.ResourceRequirements{Limits: w.limits},
	}
	if w.served {
		container.ReadinessProbe = &corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{
				HTTPGet: &corev1.HTTPGetAction{Path: "/f", Port: intstr.FromInt32(8080)},
			},
			PeriodSeconds: 1,
		}
	}

	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: w.name + "-" + node},
		Spec: corev1.PodSpec{
			NodeSelector:                  map[string]string{corev1.LabelHostname: node},
			TerminationGracePeriodSeconds: &grace,
		},
	}
	if w.served {
		pod.Labels = map[string]string{"serves": node}
	}

	if w.volume != (corev1.VolumeSource{}) {
		container.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
		pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: w.volume}}
	}

	pod.Spec.Containers = []corev1.Container{container}
	return pod
}

// allReady returns an error that counts the pods that are not ready yet.
func (r *comparison) allReady(ctx context.Context) error {
	list, err := r.Client.CoreV1().Pods(loadNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}

	waiting := 0
	for _, pod := range list.Items {
		if !bench.IsReady(&pod) {
			waiting++
		}
	}

	if waiting > 0 {
		return fmt.Errorf("%d of %d pods are not ready", waiting, len(list.Items))
	}

	return nil
}
