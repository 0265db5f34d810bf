package kube

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/retry"
)

// WatchConfig says what a Watch keeps and what it calls. The functions may be nil. They are called one at a
// time, without locks held, and must not block.
type WatchConfig[T any] struct {
	// Field and Label select objects ("spec.nodeName=a"); empty selects all.
	Field string
	Label string

	// Slim takes from an object, in place, what need not be kept. It may be called twice for one object.
	Slim func(*T)

	// Index returns the words under which By finds an object, after Slim.
	Index func(*T) []string

	// Changed is called after each difference: with a nil before for an object that appeared, with a nil now
	// for one that has gone. An object that was deleted and made again under its name is two differences.
	Changed func(before, now *T)

	// Listed is called once, when the first list is complete and Changed has been called for all of it.
	Listed func()

	// Failed is called with each error of a list or a watch; the Watch goes on by itself. If it is nil the
	// errors are logged by client-go.
	Failed func(error)

	// Retry are the pauses after errors. The zero value is client-go's: 0.8 to 30 s, with jitter.
	Retry retry.Backoff
}

// Watch keeps the newest version of the objects of one kind by a list-watch, which resumes and lists again by
// itself. The objects that it returns are shared: they must not be changed. It is safe for concurrent use.
type Watch[T any] struct{ store *store }

// NewWatch returns a Watch of some objects. It is empty until Run runs.
func NewWatch[T any](source Objects[T], cfg WatchConfig[T]) *Watch[T] {
	s := newStore(source.resource)
	s.field, s.label = cfg.Field, cfg.Label
	s.listedHook, s.failedHook = cfg.Listed, cfg.Failed
	s.pauses = cfg.Retry
	if cfg.Slim != nil {
		s.slim = func(object metav1.Object) { cfg.Slim(any(object).(*T)) }
	}
	if cfg.Index != nil {
		s.index = func(object metav1.Object) []string { return cfg.Index(any(object).(*T)) }
	}
	if cfg.Changed != nil {
		s.changed = func(before, now metav1.Object) { cfg.Changed(orNil[T](before), orNil[T](now)) }
	}

	return &Watch[T]{store: s}
}

// orNil is an object with its type, nil for none.
func orNil[T any](object metav1.Object) *T {
	typed, _ := any(object).(*T)
	return typed
}

// Run lists and watches until ctx ends. It is called once. What the watch misses is made good by a list
// (Limits.Relist).
func (w *Watch[T]) Run(ctx context.Context) { w.store.run(ctx) }

// Listed is closed when the first list is complete: before, an object that is absent may only be unknown.
func (w *Watch[T]) Listed() <-chan struct{} { return w.store.listed }

// HasListed reports whether the first list is complete.
func (w *Watch[T]) HasListed() bool { return w.store.hasListed() }

// Relist has the objects listed again. It is for callers that have learned elsewhere that the watch has
// missed something. While the objects are being listed anyway it does nothing; lists that it leads to are at
// least 30 s apart.
func (w *Watch[T]) Relist() { w.store.rounds.Ask() }

// Get returns an object by its Key, nil if there is none.
func (w *Watch[T]) Get(key string) *T { return orNil[T](w.store.get(key)) }

// All returns all objects, in no order.
func (w *Watch[T]) All() []*T { return typed[T](w.store.all()) }

// By returns the objects that Index has under a word, in no order.
func (w *Watch[T]) By(word string) []*T { return typed[T](w.store.by(word)) }

func typed[T any](all []metav1.Object) []*T {
	out := make([]*T, 0, len(all))
	for _, object := range all {
		out = append(out, any(object).(*T))
	}
	return out
}

// Saw takes the server's answer to a write, which may be newer than what the watch has shown. It reports
// whether it is. An object that is not known is not added: it has gone. Changed is not called.
func (w *Watch[T]) Saw(object *T) bool { return w.store.saw(any(object).(metav1.Object)) }

// AwaitListed waits until the first lists of all watches are complete. It returns the cause of ctx if that
// ends before.
func AwaitListed(ctx context.Context, all ...interface{ Listed() <-chan struct{} }) error {
	for _, w := range all {
		select {
		case <-w.Listed():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
