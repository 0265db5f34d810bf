// Package bench measures what a user of a node waits for: a pod from created to Ready and from deleted to
// gone, one at a time and fifty at once. Nodes of different make stand side by side in one cluster, behind
// one control plane, and take turns, so that noise of the machine meets all of them alike.
package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/trivet-node/trivet/internal/patience"
	"github.com/trivet-node/trivet/internal/retry"
)

// Bench creates pods in one namespace and watches them.
type Bench struct {
	Client    kubernetes.Interface
	Namespace string

	// Image is on every node after Prepare.
	Image string

	// Command must exit at once on SIGTERM.
	Command []string

	Readiness *corev1.Probe

	// Change, if it is there, makes what each pod is to be of the one that the fields above describe.
	Change func(*corev1.Pod)
}

// Sample is the life of one pod on one node.
type Sample struct {
	Node string

	// ToReady is from the create call to the Ready condition as seen on a watch, ToGone from the delete call
	// to the DELETED event.
	ToReady, ToGone time.Duration
}

// Burst is many pods at once on one node: the time until the last one was there.
type Burst struct {
	Node     string
	Pods     int
	AllReady time.Duration
	AllGone  time.Duration
}

// Prepare makes the namespace and runs one pod on each node, so that the image is there and caches are warm.
func (b *Bench) Prepare(ctx context.Context, nodes []string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.Namespace}}
	if _, err := b.Client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil &&
		!apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", b.Namespace, err)
	}

	if err := b.awaitServiceAccount(ctx); err != nil {
		return err
	}

	for _, n := range nodes {
		if _, err := b.One(ctx, n, "warm-up-"+n); err != nil {
			return fmt.Errorf("warm up %s: %w", n, err)
		}
	}

	return nil
}

// awaitServiceAccount waits for the account that pods of the namespace run as. It asks repeatedly: a watch
// may end at any time, which one of an API server that had just come up did.
func (b *Bench) awaitServiceAccount(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience.Of(accountLimit))
	defer cancel()

	pauses := retry.Backoff{First: 100 * time.Millisecond, Max: time.Second}
	err := retry.Until(ctx, pauses, func(ctx context.Context) error {
		_, err := b.Client.CoreV1().ServiceAccounts(b.Namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("service account default of namespace %s: %w", b.Namespace, err)
	}

	return nil
}

// accountLimit bounds how long the controllers take to make a namespace's first account.
const accountLimit = 2 * time.Minute

// One runs one pod through its life on the node.
func (b *Bench) One(ctx context.Context, node, name string) (Sample, error) {
	burst, err := b.Many(ctx, node, []string{name})
	return Sample{Node: node, ToReady: burst.AllReady, ToGone: burst.AllGone}, err
}

// Many creates the named pods on the node at once, waits until all are Ready, deletes all at once, and waits
// until all are gone. What it created is deleted also when it returns an error.
func (b *Bench) Many(ctx context.Context, node string, names []string) (Burst, error) {
	lives, err := b.watch(ctx)
	if err != nil {
		return Burst{}, err
	}
	defer lives.stop()

	out := Burst{Node: node, Pods: len(names)}
	start := time.Now()
	if err := each(names, func(n string) error { return b.create(ctx, node, n) }); err != nil {
		return out, err
	}

	last, err := lives.await(ctx, names, readyAt)
	if err != nil {
		err = fmt.Errorf("wait for %d pods on %s to be Ready: %w", len(names), node, err)
		return out, errors.Join(err, b.deleteAll(context.WithoutCancel(ctx), names))
	}

	out.AllReady = last.Sub(start)
	if err := retry.Sleep(ctx, runTime); err != nil {
		return out, err
	}

	start = time.Now()
	if err := b.deleteAll(ctx, names); err != nil {
		return out, err
	}

	last, err = lives.await(ctx, names, goneAt)
	if err != nil {
		return out, fmt.Errorf("wait for %d pods on %s to be gone: %w", len(names), node, err)
	}

	out.AllGone = last.Sub(start)
	return out, nil
}

// runTime is how long pods run before they are deleted. A process that has just been started may not handle
// SIGTERM yet; as PID 1 it then misses it, and ends only when its grace is over.
const runTime = time.Second

// Names returns n pod names with a prefix.
func Names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return out
}

// Start creates the named pods on the node and waits until all are Ready; Stop deletes them and waits until
// they are gone.
func (b *Bench) Start(ctx context.Context, node string, names []string) error {
	lives, err := b.watch(ctx)
	if err != nil {
		return err
	}
	defer lives.stop()
	if err := each(names, func(n string) error { return b.create(ctx, node, n) }); err != nil {
		return err
	}
	_, err = lives.await(ctx, names, readyAt)
	return err
}

// Stop is the end of Start.
func (b *Bench) Stop(ctx context.Context, names []string) error {
	lives, err := b.watch(ctx)
	if err != nil {
		return err
	}
	defer lives.stop()
	if err := b.deleteAll(ctx, names); err != nil {
		return err
	}
	_, err = lives.await(ctx, names, goneAt)
	return err
}

func (b *Bench) create(ctx context.Context, node, name string) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			// Through the scheduler, as a user's pod goes.
			NodeSelector: map[string]string{corev1.LabelHostname: node},
			Containers: []corev1.Container{{
				Name:            "main",
				Image:           b.Image,
				Command:         b.Command,
				ImagePullPolicy: corev1.PullIfNotPresent,
				ReadinessProbe:  b.Readiness,
			}},
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}

	if b.Change != nil {
		b.Change(pod)
	}

	_, err := b.Client.CoreV1().Pods(b.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	return err
}

func (b *Bench) deleteAll(ctx context.Context, names []string) error {
	return each(names, func(n string) error {
		return b.Client.CoreV1().Pods(b.Namespace).Delete(ctx, n, metav1.DeleteOptions{})
	})
}

// each runs f for all names, at most 16 at a time.
func each(names []string, f func(string) error) error {
	var group sync.WaitGroup
	slots := make(chan struct{}, 16)
	errs := make([]error, len(names))
	for i, n := range names {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()

			errs[i] = f(n)
		})
	}

	group.Wait()
	return errors.Join(errs...)
}

// watch follows the pods of the namespace from now on.
func (b *Bench) watch(ctx context.Context) (*lives, error) {
	list, err := b.Client.CoreV1().Pods(b.Namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}

	from := metav1.ListOptions{ResourceVersion: list.ResourceVersion}
	w, err := b.Client.CoreV1().Pods(b.Namespace).Watch(ctx, from)
	if err != nil {
		return nil, err
	}

	return newLives(w), nil
}

// Median of the durations; zero for none.
func Median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// Clean removes the namespace and what is in it.
func (b *Bench) Clean(ctx context.Context) error {
	err := b.Client.CoreV1().Namespaces().Delete(ctx, b.Namespace, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
