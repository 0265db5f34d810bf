package kube

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// watchTimeout is when a watch of one object ends at the earliest, to be begun again from where it was.
const watchTimeout = 5 * time.Minute

// Follow calls see with each state of a single object until ctx ends: first as it is listed, then as it
// changes, with nil while there is none. It is what the Node authorizer allows a node of ConfigMaps and
// Secrets, and costs less than a Watch.
//
// Follow returns the first error of see or of the server, an expired resource version included; the caller
// decides when to call it again. A watch that merely ended is resumed. When ctx ends it returns nil.
func Follow[T any](
	ctx context.Context,
	source Objects[T],
	namespace, name string,
	see func(*T) error,
) error {
	f := follower{
		source:    source.resource,
		namespace: namespace,
		selector:  fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
		see:       func(object runtime.Object) error { return see(any(object).(*T)) },
		seeNone:   func() error { return see(nil) },
	}
	return f.run(ctx, name)
}

// follower follows one object, without its type.
type follower struct {
	source    *resource
	namespace string
	selector  string
	see       func(runtime.Object) error
	seeNone   func() error
}

func (f follower) run(ctx context.Context, name string) error {
	version, err := f.list(ctx)
	for err == nil && ctx.Err() == nil {
		version, err = f.watch(ctx, version)
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("follow %s %s: %w", f.source.name, key(f.namespace, name), err)
}

// list sees the object as it is and returns the version to watch from.
func (f follower) list(ctx context.Context) (version string, err error) {
	var all []runtime.Object
	err = RetryForbidden(ctx, func() (err error) {
		all, version, err = f.source.items(ctx, f.namespace, metav1.ListOptions{FieldSelector: f.selector})
		return err
	})

	switch {
	case err != nil:
		return "", err
	case len(all) == 0:
		return version, f.seeNone()
	}

	return version, f.see(all[0])
}

// watch sees what changes until the watch ends, and returns the version to go on from.
func (f follower) watch(ctx context.Context, version string) (string, error) {
	start, events := time.Now(), 0
	seconds := int64(watchTimeout.Seconds())
	stream, err := f.source.watch(ctx, f.namespace, metav1.ListOptions{
		FieldSelector:       f.selector,
		ResourceVersion:     version,
		AllowWatchBookmarks: true,
		TimeoutSeconds:      new(seconds + rand.Int64N(seconds)),
	})
	if err != nil {
		return "", err
	}
	defer stream.Stop()

	for event := range stream.ResultChan() {
		events++
		if event.Type == watch.Error {
			return "", apierrors.FromObject(event.Object)
		}
		if about, ok := event.Object.(metav1.Object); ok {
			version = about.GetResourceVersion()
		}

		switch event.Type {
		case watch.Deleted:
			err = f.seeNone()
		case watch.Added, watch.Modified:
			err = f.see(event.Object)
		}

		if err != nil {
			return "", err
		}
	}

	// A proxy that does not stream must not make this a busy loop.
	if events == 0 && time.Since(start) < time.Second && ctx.Err() == nil {
		return "", errors.New("the server ended the watch at once")
	}

	return version, nil
}
