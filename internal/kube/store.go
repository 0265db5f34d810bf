package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/trivet-node/trivet/internal/kube/absent"
	"github.com/trivet-node/trivet/internal/kube/history"
	"github.com/trivet-node/trivet/internal/kube/onestream"
	"github.com/trivet-node/trivet/internal/kube/round"
	"github.com/trivet-node/trivet/internal/retry"
)

// store is a Watch without the type of its objects, and what client-go's reflector fills.
type store struct {
	source *resource

	// See WatchConfig; nil functions are not called.
	field, label string
	slim         func(metav1.Object)
	index        func(metav1.Object) []string
	changed      func(before, now metav1.Object)
	listedHook   func()
	failedHook   func(error)
	pauses       retry.Backoff

	listed chan struct{} // closed with the first list
	rounds *round.Rounds

	// left asks the server in the round that runs which of the objects that a list lacks may still be there,
	// and returns one of them. The goroutine of the reflector alone uses it.
	left func(lacks []metav1.Object, version string) metav1.Object

	// mu guards the rest.
	mu      sync.Mutex
	objects map[string]metav1.Object
	words   map[string]map[string]metav1.Object // by word of index, then by key
	history history.History
}

func newStore(source *resource) *store {
	return &store{
		source:  source,
		listed:  make(chan struct{}),
		rounds:  round.New(source.limits.Silence, source.limits.Relist),
		left:    func(lacks []metav1.Object, _ string) metav1.Object { return lacks[0] },
		objects: map[string]metav1.Object{},
		words:   map[string]map[string]metav1.Object{},
	}
}

// run lists and watches until ctx ends.
func (s *store) run(ctx context.Context) {
	known := func() int { return len(s.all()) }
	s.rounds.Run(ctx, known, s.reflect)
}

// reflect lists and watches until ctx ends. A watch that ended is resumed.
func (s *store) reflect(ctx context.Context) {
	// The server ends no watch before the round is over.
	options := cache.ReflectorOptions{
		Name:            s.source.name,
		MinWatchTimeout: 2 * s.source.limits.Relist,
	}
	if first := s.pauses.First; first > 0 {
		options.Backoff = &wait.Backoff{
			Duration: first,
			Cap:      s.pauses.Max,
			Factor:   2,
			Steps:    1 << 30,
			Jitter:   s.pauses.Jitter,
		}
	}

	if s.failedHook != nil {
		silent := klog.New(nil)
		options.Logger = &silent
		ctx = klog.NewContext(ctx, silent)
	}

	source, stop := onestream.Of(cache.ListWatch{
		ListWithContextFunc:  s.list,
		WatchFuncWithContext: s.watch,
	})
	defer stop()
	s.left = func(lacks []metav1.Object, version string) metav1.Object {
		ctx, cancel := context.WithTimeout(ctx, s.source.limits.Answer)
		defer cancel()
		return absent.Left(ctx, lacks, version, s.source.named(s.selected(metav1.ListOptions{})))
	}
	cache.NewReflectorWithOptions(source, s.source.makeOne(), s, options).RunWithContext(ctx)
}

func (s *store) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	s.rounds.Heard()

	// The reflector takes any version for its first list, such as one in which a deleted pod still is.
	if options.ResourceVersion == "0" {
		options.ResourceVersion = ""
	}

	list, err := s.source.list(ctx, "", s.selected(options), s.rounds.Heard)
	s.failed(ctx, err)
	if about, odd := meta.ListAccessor(list); err == nil && odd == nil {
		s.mu.Lock()
		s.history.Whole(about.GetResourceVersion())
		s.mu.Unlock()
	}
	return list, err
}

func (s *store) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	s.rounds.Heard()
	stream, err := s.source.watch(ctx, "", s.selected(options))
	s.failed(ctx, err)
	return stream, err
}

func (s *store) selected(options metav1.ListOptions) metav1.ListOptions {
	options.FieldSelector, options.LabelSelector = s.field, s.label
	return options
}

func (s *store) failed(ctx context.Context, err error) {
	if err != nil && s.failedHook != nil && ctx.Err() == nil {
		s.failedHook(err)
	}
}

func (s *store) hasListed() bool {
	select {
	case <-s.listed:
		return true
	default:
		return false
	}
}

func (s *store) get(key string) metav1.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[key]
}

func (s *store) all() []metav1.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.objects))
}

func (s *store) by(word string) []metav1.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.words[word]))
}

func (s *store) saw(object metav1.Object) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.objects[keyOf(object)]
	if old == nil || old.GetUID() != object.GetUID() || !newer(object, old) {
		return false
	}
	s.put(object)
	return true
}

// difference is one call of changed.
type difference struct{ before, now metav1.Object }

// put slims and stores an object and returns what changed is to be called with. The caller holds the lock.
func (s *store) put(object metav1.Object) []difference {
	if s.slim != nil {
		s.slim(object)
	}

	key := keyOf(object)
	old := s.objects[key]
	s.drop(key)
	s.objects[key] = object
	for _, word := range s.wordsOf(object) {
		if s.words[word] == nil {
			s.words[word] = map[string]metav1.Object{}
		}

		s.words[word][key] = object
	}

	if old != nil && old.GetUID() != object.GetUID() {
		return []difference{{before: old}, {now: object}}
	}

	return []difference{{before: old, now: object}}
}

// drop takes an object out. The caller holds the lock.
func (s *store) drop(key string) {
	old := s.objects[key]
	if old == nil {
		return
	}
	delete(s.objects, key)
	for _, word := range s.wordsOf(old) {
		delete(s.words[word], key)
		if len(s.words[word]) == 0 {
			delete(s.words, word)
		}
	}
}

func (s *store) wordsOf(object metav1.Object) []string {
	if s.index == nil {
		return nil
	}
	return s.index(object)
}

// stale reports whether an object is no newer than the one that is known under its key. The caller holds the
// lock.
func (s *store) stale(object metav1.Object) bool {
	old := s.objects[keyOf(object)]
	return old != nil && old.GetUID() == object.GetUID() && !newer(object, old)
}

// advance takes the version of an event. It reports whether the event is in order. If it is not, something
// between has changed the order and may have lost others, and the round is over. The caller holds the lock.
func (s *store) advance(version string) bool {
	inOrder := s.history.Advance(version)
	if !inOrder {
		s.rounds.End(round.ErrDisorder)
	}
	return inOrder
}

// report calls changed.
func (s *store) report(all []difference) {
	if s.changed == nil {
		return
	}
	for _, d := range all {
		s.changed(d.before, d.now)
	}
}

// Add is called by the reflector for an object that appeared.
func (s *store) Add(obj any) error { return s.take(obj) }

// Update is called by the reflector for an object that changed.
func (s *store) Update(obj any) error { return s.take(obj) }

func (s *store) take(obj any) error {
	object, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("watch of %s: unexpected %T", s.source.name, obj)
	}

	s.mu.Lock()
	var all []difference
	if s.advance(object.GetResourceVersion()) && !s.stale(object) {
		all = s.put(object)
	}

	s.mu.Unlock()

	s.report(all)
	return nil
}

// Delete is called by the reflector for an object that has gone.
func (s *store) Delete(obj any) error {
	object, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("watch of %s: unexpected %T", s.source.name, obj)
	}

	s.mu.Lock()
	inOrder := s.advance(object.GetResourceVersion())
	old := s.objects[keyOf(object)]
	known := inOrder && old != nil && old.GetUID() == object.GetUID()
	if known {
		s.drop(keyOf(object))
	}

	s.mu.Unlock()

	if known {
		s.report([]difference{{before: old}})
	}

	return nil
}

// Replace is called by the reflector after each list. If it returns an error, the reflector lists again.
func (s *store) Replace(list []any, version string) error {
	var all []difference
	present := map[string]metav1.Object{}
	for _, obj := range list {
		if object, ok := obj.(metav1.Object); ok {
			present[keyOf(object)] = object
		}
	}

	s.mu.Lock()
	lacks, doubts := absent.From(s.objects, present), s.history.Doubts(version)
	s.mu.Unlock()

	doubted := ""
	if len(lacks) > 0 && doubts {
		s.rounds.Heard()
		if left := s.left(lacks, version); left != nil {
			doubted = keyOf(left)
		}
	}

	s.mu.Lock()
	restored, err := s.history.Judge(version, doubted, time.Now())
	if err != nil {
		s.mu.Unlock()
		err = fmt.Errorf("list of %s: %w", s.source.name, err)
		if errors.Is(err, history.ErrEarlier) && s.failedHook != nil {
			s.failedHook(err)
		}
		return err
	}

	for _, object := range present {
		if restored || !s.stale(object) {
			all = append(all, s.put(object)...)
		}
	}

	// What is not in the list was deleted, and no event has said so.
	for key, old := range s.objects {
		if _, ok := present[key]; !ok {
			s.drop(key)
			all = append(all, difference{before: old})
		}
	}

	s.mu.Unlock()
	s.rounds.Listed()

	// Listeners are called without the lock: they may read the store.
	s.report(all)
	if !s.hasListed() {
		close(s.listed)
		if s.listedHook != nil {
			s.listedHook()
		}
	}

	return nil
}

// Resync is called by the reflector. Nothing is compared periodically here.
func (s *store) Resync() error { return nil }

// UpdateResourceVersion is called by the reflector after each event of a watch, and for bookmarks, which have
// nothing else.
func (s *store) UpdateResourceVersion(version string) {
	s.rounds.Heard()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(version)
}

// Transformer is called by the reflector: what a list has too much of is dropped while it comes in.
func (s *store) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		s.rounds.Heard()
		if object, ok := obj.(metav1.Object); ok && s.slim != nil {
			s.slim(object)
		}
		return obj, nil
	}
}
