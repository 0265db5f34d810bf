package kube

import (
	"context"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/trivet-node/trivet/internal/retry"
)

// WatchConfig says what a Watch keeps and whom it calls. The functions may be nil. They are called one at a
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
type Watch[T any] struct {
	source Objects[T]
	cfg    WatchConfig[T]
	listed chan struct{} // closed with the first list

	mu      sync.Mutex // guards the rest
	objects map[string]*T
	words   map[string]map[string]*T // by word of Index, then by key
}

// NewWatch returns a Watch of some objects. It is empty until Run runs.
func NewWatch[T any](source Objects[T], cfg WatchConfig[T]) *Watch[T] {
	return &Watch[T]{
		source:  source,
		cfg:     cfg,
		listed:  make(chan struct{}),
		objects: map[string]*T{},
		words:   map[string]map[string]*T{},
	}
}

// Run lists and watches until ctx ends. It is called once.
func (w *Watch[T]) Run(ctx context.Context) {
	options := cache.ReflectorOptions{Name: w.source.resource}
	if first := w.cfg.Retry.First; first > 0 {
		options.Backoff = &wait.Backoff{
			Duration: first,
			Cap:      w.cfg.Retry.Max,
			Factor:   2,
			Steps:    1 << 30,
			Jitter:   w.cfg.Retry.Jitter,
		}
	}
	if w.cfg.Failed != nil {
		silent := klog.New(nil)
		options.Logger = &silent
		ctx = klog.NewContext(ctx, silent)
	}

	source := &cache.ListWatch{ListWithContextFunc: w.list, WatchFuncWithContext: w.watch}
	cache.NewReflectorWithOptions(source, w.source.makeOne(), (*store[T])(w), options).RunWithContext(ctx)
}

func (w *Watch[T]) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	list, err := w.source.list(ctx, "", w.selected(options))
	w.failed(ctx, err)
	return list, err
}

func (w *Watch[T]) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	stream, err := w.source.watch(ctx, "", w.selected(options))
	w.failed(ctx, err)
	return stream, err
}

func (w *Watch[T]) selected(options metav1.ListOptions) metav1.ListOptions {
	options.FieldSelector, options.LabelSelector = w.cfg.Field, w.cfg.Label
	return options
}

func (w *Watch[T]) failed(ctx context.Context, err error) {
	if err != nil && w.cfg.Failed != nil && ctx.Err() == nil {
		w.cfg.Failed(err)
	}
}

// Listed is closed when the first list is complete: before, an object that is absent may only be unknown.
func (w *Watch[T]) Listed() <-chan struct{} { return w.listed }

// HasListed reports whether the first list is complete.
func (w *Watch[T]) HasListed() bool {
	select {
	case <-w.listed:
		return true
	default:
		return false
	}
}

// Get returns an object by its Key, nil if there is none.
func (w *Watch[T]) Get(key string) *T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.objects[key]
}

// All returns all objects, in no order.
func (w *Watch[T]) All() []*T {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]*T, 0, len(w.objects))
	for _, object := range w.objects {
		out = append(out, object)
	}
	return out
}

// By returns the objects that Index has under a word, in no order.
func (w *Watch[T]) By(word string) []*T {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*T
	for _, object := range w.words[word] {
		out = append(out, object)
	}
	return out
}

// Saw takes the server's answer to a write, which may be newer than what the watch has shown. It reports
// whether it is. An object that is not known is not added: it has gone. Changed is not called.
func (w *Watch[T]) Saw(object *T) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.objects[Key(object)]
	if old == nil || accessor(old).GetUID() != accessor(object).GetUID() || !newer(object, old) {
		return false
	}
	w.put(object)
	return true
}

// newer orders two versions of one object (KEP-5504: resource versions compare since Kubernetes 1.35).
// Versions that do not compare are taken as they come.
func newer[T any](a, b *T) bool {
	order, err := resourceversion.CompareResourceVersion(
		accessor(a).GetResourceVersion(), accessor(b).GetResourceVersion())
	return err != nil || order > 0
}

// difference is one call of Changed.
type difference[T any] struct{ before, now *T }

// put slims and stores an object and returns what Changed is to be called with. The caller holds the lock.
func (w *Watch[T]) put(object *T) []difference[T] {
	if w.cfg.Slim != nil {
		w.cfg.Slim(object)
	}
	key := Key(object)
	old := w.objects[key]
	w.drop(key)
	w.objects[key] = object
	for _, word := range w.wordsOf(object) {
		if w.words[word] == nil {
			w.words[word] = map[string]*T{}
		}
		w.words[word][key] = object
	}

	if old != nil && accessor(old).GetUID() != accessor(object).GetUID() {
		return []difference[T]{{before: old}, {now: object}}
	}
	return []difference[T]{{before: old, now: object}}
}

// drop takes an object out. The caller holds the lock.
func (w *Watch[T]) drop(key string) {
	old := w.objects[key]
	if old == nil {
		return
	}
	delete(w.objects, key)
	for _, word := range w.wordsOf(old) {
		delete(w.words[word], key)
		if len(w.words[word]) == 0 {
			delete(w.words, word)
		}
	}
}

func (w *Watch[T]) wordsOf(object *T) []string {
	if w.cfg.Index == nil {
		return nil
	}
	return w.cfg.Index(object)
}

// stale reports whether an object is no newer than the one that is known under its key. The caller holds the
// lock.
func (w *Watch[T]) stale(object *T) bool {
	old := w.objects[Key(object)]
	return old != nil && accessor(old).GetUID() == accessor(object).GetUID() && !newer(object, old)
}

func (w *Watch[T]) changed(all []difference[T]) {
	if w.cfg.Changed == nil {
		return
	}
	for _, d := range all {
		w.cfg.Changed(d.before, d.now)
	}
}

// store is a Watch as the reflector sees it.
type store[T any] Watch[T]

// Add is called by the reflector for an object that appeared.
func (s *store[T]) Add(obj any) error { return s.put(obj) }

// Update is called by the reflector for an object that changed.
func (s *store[T]) Update(obj any) error { return s.put(obj) }

func (s *store[T]) put(obj any) error {
	object, ok := obj.(*T)
	if !ok {
		return fmt.Errorf("watch of %s: unexpected %T", s.source.resource, obj)
	}
	w := (*Watch[T])(s)

	w.mu.Lock()
	var all []difference[T]
	if !w.stale(object) {
		all = w.put(object)
	}
	w.mu.Unlock()

	w.changed(all)
	return nil
}

// Delete is called by the reflector for an object that has gone.
func (s *store[T]) Delete(obj any) error {
	object, ok := obj.(*T)
	if !ok {
		return fmt.Errorf("watch of %s: unexpected %T", s.source.resource, obj)
	}
	w := (*Watch[T])(s)

	w.mu.Lock()
	old := w.objects[Key(object)]
	w.drop(Key(object))
	w.mu.Unlock()

	if old != nil {
		w.changed([]difference[T]{{before: old}})
	}
	return nil
}

// Replace is called by the reflector after each list.
func (s *store[T]) Replace(list []any, _ string) error {
	w := (*Watch[T])(s)
	var all []difference[T]
	present := map[string]types.UID{}

	w.mu.Lock()
	for _, obj := range list {
		object, ok := obj.(*T)
		if !ok {
			continue
		}
		present[Key(object)] = accessor(object).GetUID()
		if !w.stale(object) {
			all = append(all, w.put(object)...)
		}
	}
	for key, old := range w.objects {
		if _, ok := present[key]; !ok {
			w.drop(key)
			all = append(all, difference[T]{before: old})
		}
	}
	w.mu.Unlock()

	w.changed(all)
	if !w.HasListed() {
		close(w.listed)
		if w.cfg.Listed != nil {
			w.cfg.Listed()
		}
	}
	return nil
}

// Resync is called by the reflector. Nothing is compared periodically here.
func (s *store[T]) Resync() error { return nil }

// Transformer is called by the reflector: what a list has too much of is dropped while it comes in.
func (s *store[T]) Transformer() cache.TransformFunc {
	if s.cfg.Slim == nil {
		return nil
	}
	return func(obj any) (any, error) {
		if object, ok := obj.(*T); ok {
			s.cfg.Slim(object)
		}
		return obj, nil
	}
}

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
