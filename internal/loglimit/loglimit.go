// Package loglimit keeps a log from being flooded by what goes on failing: a call that is tried each second,
// or requests of others that are refused. A warning or error that is like one of the last minute is not
// written but counted, and the last of them is written when the minute has ended.
package loglimit

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// interval is how long a record that was written stands for those that are like it.
const interval = time.Minute

// most is how many records of one message are told apart at a time. All others of the message count as like
// each other: what differs in them may be a caller's.
const most = 50

// repeatedKey is the key of the attribute that says how many records one stands for: it is the last of so
// many since one like it was written.
const repeatedKey = "repeated"

// Handler passes records to another handler. Those below slog.LevelWarn are passed on as they come: they say
// what has changed, and in which order.
type Handler struct {
	next slog.Handler

	// scope is what next adds to all records.
	scope  string
	recent *recent
}

// New returns a handler for the records that are meant for next. One of them may be passed on a minute after
// it was made, with its own time.
func New(next slog.Handler) *Handler {
	return &Handler{next: next, recent: &recent{seed: maphash.MakeSeed(), messages: map[string]lines{}}}
}

// Enabled reports whether next takes records of a level.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle passes on a record unless there was one like it within the last minute.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn || h.recent.first(ctx, h, r) {
		return h.next.Handle(ctx, r)
	}
	return nil
}

// Flush writes what is held back: it is called when the program ends.
func (h *Handler) Flush(ctx context.Context) {
	held := h.recent.takeAll()
	slices.SortFunc(held, func(a, b line) int { return a.last.Time.Compare(b.last.Time) })
	for _, l := range held {
		l.write(ctx)
	}
}

// WithAttrs returns a handler whose records have attributes. It limits the same log.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var scope strings.Builder
	scope.WriteString(h.scope)
	for _, a := range attrs {
		scope.WriteString(text(a))
	}
	return &Handler{next: h.next.WithAttrs(attrs), scope: scope.String(), recent: h.recent}
}

// WithGroup returns a handler whose records have their attributes in a group. It limits the same log.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{next: h.next.WithGroup(name), scope: h.scope + name + ".", recent: h.recent}
}

// text is what an attribute has to do with whether records are like each other. How long something took or
// waits, and when it was, has nothing.
func text(a slog.Attr) string {
	value := a.Value.Resolve()
	switch value.Kind() {
	case slog.KindDuration, slog.KindTime:
		return ""
	}
	return fmt.Sprintf("%q=%q ", a.Key, value.String())
}

// recent knows which records were written within the last minute.
type recent struct {
	seed maphash.Seed

	// mu guards messages.
	mu       sync.Mutex
	messages map[string]lines
}

// lines are the records of one message, by a hash of their attributes.
type lines map[uint64]*line

// others is the line of the records that are not told apart.
const others = 0

// line is a record that was written, and what came after it.
type line struct {
	repeated int

	// last is the last record that was like it, and next the handler that it is meant for.
	last slog.Record
	next slog.Handler
}

// first reports whether a record is to be written now. Otherwise it is counted.
func (l *recent) first(ctx context.Context, h *Handler, r slog.Record) bool {
	hash := l.hash(h.scope, r)

	l.mu.Lock()
	defer l.mu.Unlock()

	written := l.messages[r.Message]
	if written == nil {
		written = lines{}
		l.messages[r.Message] = written
	}

	if written[hash] == nil && len(written) >= most {
		hash = others
	}
	if before := written[hash]; before != nil {
		before.repeated++
		before.last = r.Clone()
		before.next = h.next
		return false
	}

	written[hash] = &line{}
	ctx = context.WithoutCancel(ctx)
	time.AfterFunc(interval, func() { l.end(ctx, r.Message, hash) })
	return true
}

func (l *recent) hash(scope string, r slog.Record) uint64 {
	var b strings.Builder
	b.WriteString(scope)
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(text(a))
		return true
	})
	return maphash.String(l.seed, b.String())
}

// end ends the minute of a line: it is written if it was repeated, and forgotten otherwise.
func (l *recent) end(ctx context.Context, message string, hash uint64) {
	held := l.take(message, hash)
	if held == nil {
		return
	}

	held.write(ctx)
	time.AfterFunc(interval, func() { l.end(ctx, message, hash) })
}

// take returns what is held back of a line. It returns nil if there is nothing, and forgets the line.
func (l *recent) take(message string, hash uint64) *line {
	l.mu.Lock()
	defer l.mu.Unlock()

	written := l.messages[message]
	if held := *written[hash]; held.repeated > 0 {
		*written[hash] = line{}
		return &held
	}

	delete(written, hash)
	if len(written) == 0 {
		delete(l.messages, message)
	}

	return nil
}

// takeAll returns what is held back of all lines.
func (l *recent) takeAll() (all []line) {
	l.mu.Lock()
	defer l.mu.Unlock()

	for _, written := range l.messages {
		for _, held := range written {
			if held.repeated > 0 {
				all = append(all, *held)
				*held = line{}
			}
		}
	}
	return all
}

// write writes the last of the records that were held back.
func (l *line) write(ctx context.Context) {
	l.last.AddAttrs(slog.Int(repeatedKey, l.repeated))
	_ = l.next.Handle(ctx, l.last)
}
