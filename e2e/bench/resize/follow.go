package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/trivet-node/trivet/e2e/podresize"
)

// follower follows the pods of the namespace.
type follower struct {
	watch watch.Interface
	pods  map[string]seen
}

// seen is a pod in its last state, when that was seen, and when its generation first was.
type seen struct {
	pod       *corev1.Pod
	at, asked time.Time
}

// answer is the API server's to a resize that was asked for, and what the pod is to show then.
type answer struct {
	name string
	want podresize.Want
}

// follow watches from now on.
func (s *side) follow(ctx context.Context) (*follower, error) {
	pods := s.Client.CoreV1().Pods(namespace)
	list, err := pods.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}

	w, err := pods.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return nil, err
	}

	return &follower{watch: w, pods: map[string]seen{}}, nil
}

func (f *follower) stop() { f.watch.Stop() }

// note keeps a pod as it was just seen.
func (f *follower) note(pod *corev1.Pod) {
	s := seen{pod: pod, at: time.Now()}
	s.asked = s.at
	if before, ok := f.pods[pod.Name]; ok && before.pod.Generation == pod.Generation {
		s.asked = before.asked
	}
	f.pods[pod.Name] = s
}

// await returns when so many pods were patched and all of them show it: how long it took from the first that
// was seen to ask for it until the last that was seen to show it.
func (f *follower) await(ctx context.Context, n int, answers <-chan answer) (time.Duration, error) {
	var first, last time.Time
	wanted := map[string]podresize.Want{}
	look := func(name string) error {
		w, isAsked := wanted[name]
		s, isSeen := f.pods[name]
		if !isAsked || !isSeen {
			return nil
		}

		isShown, err := w.ShownBy(s.pod)
		if err == nil && !isShown {
			return podresize.Failed(s.pod)
		}

		if isShown {
			delete(wanted, name)
			n--
			last = s.at
			if first.IsZero() || s.asked.Before(first) {
				first = s.asked
			}
		}

		return err
	}

	for n > 0 {
		name := ""
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%d pods do not show it: %w", n, context.Cause(ctx))

		case a := <-answers:
			name, wanted[a.name] = a.name, a.want

		case e, open := <-f.watch.ResultChan():
			if !open {
				return 0, errors.New("the watch ended")
			}

			if pod, ok := e.Object.(*corev1.Pod); ok {
				name = pod.Name
				f.note(pod)
			}
		}

		if err := look(name); err != nil {
			return 0, err
		}
	}

	return last.Sub(first), nil
}
