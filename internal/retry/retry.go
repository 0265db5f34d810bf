// Package retry has the one back-off and the one poll loop of the project. Both are range loops that end with
// a context:
//
//	for pause := range retry.Backoff{First: time.Second, Max: time.Minute}.Attempts(ctx) {
//		if err = connect(ctx); err == nil {
//			return nil
//		}
//		log.Warn("connect", "err", err, "retry", pause)
//	}
//	return errors.Join(err, context.Cause(ctx))
//
// There is no jitter unless it is asked for: only what many machines do at the same time needs it.
package retry

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"
)

// Backoff is the sequence of pauses between attempts: First, then twice as long each time, up to Max. The
// zero value of Max is no limit. A Backoff must not be used by two goroutines at a time.
type Backoff struct {
	First time.Duration
	Max   time.Duration

	// Jitter spreads each pause evenly between its length and (1+Jitter) times that.
	Jitter float64

	last time.Duration
}

// Next returns the next pause.
func (b *Backoff) Next() time.Duration {
	b.last *= 2
	if b.last == 0 {
		b.last = b.First
	}
	if b.Max > 0 {
		b.last = min(b.last, b.Max)
	}
	return b.last + time.Duration(b.Jitter*rand.Float64()*float64(b.last))
}

// Reset makes First the next pause again. It is called after a success.
func (b *Backoff) Reset() { b.last = 0 }

// Wait sleeps for the next pause. It returns the cause of ctx if that ends before.
func (b *Backoff) Wait(ctx context.Context) error { return Sleep(ctx, b.Next()) }

// Attempts yields once for each attempt, with the pause that follows it when the loop body does not leave the
// loop. The first attempt is always made. The sequence ends when ctx does; the caller then still has the
// error of the last attempt.
func (b Backoff) Attempts(ctx context.Context) iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		for {
			pause := b.Next()
			if !yield(pause) || Sleep(ctx, pause) != nil {
				return
			}
		}
	}
}

// Every yields at once and then after each interval until ctx ends: it is the loop of those who poll. The
// interval begins when the loop body has ended.
func Every(ctx context.Context, interval time.Duration) iter.Seq[time.Duration] {
	return Backoff{First: interval, Max: interval}.Attempts(ctx)
}

// Until calls attempt until it returns nil, with pauses of the back-off. When ctx ends before, Until returns
// the error of the last attempt: it says more than the end of ctx does.
func Until(ctx context.Context, b Backoff, attempt func(context.Context) error) error {
	var err error
	for range b.Attempts(ctx) {
		if err = attempt(ctx); err == nil {
			return nil
		}
	}
	return err
}

// Sleep waits for the duration, or returns the cause of ctx when that ends before.
func Sleep(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
