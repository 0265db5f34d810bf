package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/trivet-node/trivet/internal/kube/history"
	"github.com/trivet-node/trivet/internal/kube/round"
)

// watchMargin is how much later than the client the server ends a watch of one object.
const watchMargin = time.Minute

// Follower follows a single object: what the Node authorizer allows a node of ConfigMaps and Secrets, and
// less than a Watch costs. Make it with NewFollower.
type Follower[T any] struct{ follower }

// NewFollower returns a Follower that calls see with each state of an object: first as it is listed, then as
// it changes, with nil while there is none.
func NewFollower[T any](source Objects[T], namespace, name string, see func(*T) error) *Follower[T] {
	return &Follower[T]{follower{
		source:    source.resource,
		namespace: namespace,
		name:      name,
		selector:  fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
		see:       func(object runtime.Object) error { return see(any(object).(*T)) },
		seeNone:   func() error { return see(nil) },
	}}
}

// Run follows the object until ctx ends, and then returns nil. It returns the first error of see, of the
// server, an expired resource version included, of a watch that cannot be believed (Limits), or of a list
// that is older than what was seen before; the caller decides when to call it again. A watch that merely
// ended is resumed. One goroutine may call it at a time.
func (f *Follower[T]) Run(ctx context.Context) error { return f.run(ctx) }

// Follow is Run of a Follower that is made for it.
func Follow[T any](
	ctx context.Context,
	source Objects[T],
	namespace, name string,
	see func(*T) error,
) error {
	return NewFollower(source, namespace, name, see).Run(ctx)
}

// follower is a Follower without its type.
type follower struct {
	source    *resource
	namespace string
	name      string
	selector  string
	see       func(runtime.Object) error
	seeNone   func() error
	history   history.History
}

func (f *follower) run(ctx context.Context) error {
	var err error
	for err == nil && ctx.Err() == nil {
		err = f.runRound(ctx)
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("follow %s %s: %w", f.source.name, key(f.namespace, f.name), err)
}

// runRound lists the object and watches it until it is to be listed again.
func (f *follower) runRound(ctx context.Context) error {
	length := round.Length(f.source.limits.Relist, 1)
	ctx, end := context.WithTimeout(ctx, length)
	defer end()

	version, err := f.list(ctx)
	for err == nil && ctx.Err() == nil {
		version, err = f.watch(ctx, version, length)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// list sees the object as it is and returns the version to watch from.
func (f *follower) list(ctx context.Context) (version string, err error) {
	var all []runtime.Object
	err = RetryForbidden(ctx, func() (err error) {
		all, version, err = f.source.items(ctx, f.namespace, metav1.ListOptions{FieldSelector: f.selector})
		return err
	})

	if err == nil {
		f.history.Whole(version)
		_, err = f.history.Judge(version, "", time.Now())
	}

	switch {
	case err != nil:
		return "", err
	case len(all) == 0:
		return version, f.seeNone()
	}

	return version, f.see(all[0])
}

// watch sees what changes until the watch ends, and returns the version to go on from.
func (f *follower) watch(ctx context.Context, version string, length time.Duration) (string, error) {
	start, events := time.Now(), 0
	stream, err := f.source.watch(ctx, f.namespace, metav1.ListOptions{
		FieldSelector:       f.selector,
		ResourceVersion:     version,
		AllowWatchBookmarks: true,
		TimeoutSeconds:      new(int64((length + watchMargin).Seconds())),
	})
	if err != nil {
		return "", err
	}
	defer stream.Stop()

	silence := time.NewTimer(f.source.limits.Silence)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return version, nil
		case <-silence.C:
			return "", round.ErrSilent
		case event, more := <-stream.ResultChan():
			if more {
				events++
				silence.Reset(f.source.limits.Silence)
				if version, err = f.take(event, version); err != nil {
					return "", err
				}
				continue
			}
		}

		// A proxy that does not stream must not make this a busy loop.
		if events == 0 && time.Since(start) < time.Second {
			return "", errors.New("the server ended the watch at once")
		}

		return version, nil
	}
}

// take sees an event and returns its version.
func (f *follower) take(event watch.Event, before string) (version string, err error) {
	if event.Type == watch.Error {
		return "", apierrors.FromObject(event.Object)
	}

	version = before
	if about, ok := event.Object.(metav1.Object); ok {
		version = about.GetResourceVersion()
	}
	if !f.history.Advance(version) {
		return "", round.ErrDisorder
	}

	switch event.Type {
	case watch.Deleted:
		err = f.seeNone()
	case watch.Added, watch.Modified:
		err = f.see(event.Object)
	}
	return version, err
}
