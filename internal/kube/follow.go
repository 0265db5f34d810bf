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
	f := follower[T]{
		source:    source,
		namespace: namespace,
		selector:  fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
		see:       see,
	}
	version, err := f.list(ctx)
	for err == nil && ctx.Err() == nil {
		version, err = f.watch(ctx, version)
	}
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("follow %s %s: %w", source.resource, key(namespace, name), err)
	}
	return nil
}

// follower follows one object.
type follower[T any] struct {
	source    Objects[T]
	namespace string
	selector  string
	see       func(*T) error
}

// list sees the object as it is and returns the version to watch from.
func (f follower[T]) list(ctx context.Context) (version string, err error) {
	var all []*T
	err = RetryForbidden(ctx, func() (err error) {
		all, version, err = f.source.List(ctx, f.namespace, metav1.ListOptions{FieldSelector: f.selector})
		return err
	})
	switch {
	case err != nil:
		return "", err
	case len(all) == 0:
		return version, f.see(nil)
	}
	return version, f.see(all[0])
}

// watch sees what changes until the watch ends, and returns the version to go on from.
func (f follower[T]) watch(ctx context.Context, version string) (string, error) {
	start, events := time.Now(), 0
	stream, err := f.source.watch(ctx, f.namespace, metav1.ListOptions{
		FieldSelector:       f.selector,
		ResourceVersion:     version,
		AllowWatchBookmarks: true,
		TimeoutSeconds:      new(int64(watchTimeout.Seconds()) + rand.Int64N(int64(watchTimeout.Seconds()))),
	})
	if err != nil {
		return "", err
	}
	defer stream.Stop()

	for event := range stream.ResultChan() {
		events++
		object, known := any(event.Object).(*T)
		if known {
			version = accessor(object).GetResourceVersion()
		}
		switch {
		case event.Type == watch.Error:
			return "", apierrors.FromObject(event.Object)
		case event.Type == watch.Deleted:
			err = f.see(nil)
		case known && event.Type != watch.Bookmark:
			err = f.see(object)
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
