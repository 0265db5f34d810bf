package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/retry"
)

// Traced is one pod that went from created to Ready.
type Traced struct {
	Name string
	UID  string

	// Created is when the API server had answered, Ready when a watch showed it.
	Created, Ready time.Time
}

// Traced runs one pod on the node until it is Ready, and deletes it.
func (b *Bench) Traced(ctx context.Context, node, name string) (t Traced, err error) {
	lives, err := b.watch(ctx)
	if err != nil {
		return t, err
	}
	defer lives.stop()

	if err := b.create(ctx, node, name); err != nil {
		return t, err
	}

	t = Traced{Name: name, Created: time.Now()}
	defer func() { err = errors.Join(err, b.Stop(context.WithoutCancel(ctx), []string{name})) }()

	if t.Ready, err = lives.await(ctx, []string{name}, readyAt); err != nil {
		return t, fmt.Errorf("wait for pod %s on %s to be Ready: %w", name, node, err)
	}

	pod, err := b.Client.CoreV1().Pods(b.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return t, err
	}

	t.UID = string(pod.UID)
	return t, retry.Sleep(ctx, runTime)
}
