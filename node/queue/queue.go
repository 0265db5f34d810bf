// Package queue holds the UIDs of the pods that are worth a look, each with the reasons why. What happens to
// a pod only adds a reason; the look finds out what is to be done.
//
// No pod is looked at by two workers at the same time: reasons that come during a look lead to one more look
// after it. Pods take turns in the order of their first reason.
package queue

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Queue is the queue of one node. All methods may be called at the same time and none but Run blocks.
type Queue struct {
	// mu guards what follows.
	mu sync.Mutex

	// filled is signalled when a turn was added or closed was set.
	filled *sync.Cond
	closed bool

	// turns are the pods that wait for a look, each once, in the order of the looks.
	turns []types.UID

	pods map[types.UID]*pod

	// passing are those who wait until it is the turn of no pod at all.
	passing []chan struct{}
}

// pod is what the queue knows of one pod. It is dropped when there is nothing to know.
type pod struct {
	// why are the reasons for the next look; 0: none is wanted.
	why Reasons

	// asked is when the first of these reasons was given, and taken that of the look that is on its way.
	asked, taken time.Time

	// busy means that a look is on its way. The next one takes its turn after it.
	busy bool

	// timer adds a reason when it is due; nil: no later look is wanted.
	timer *time.Timer
	due   time.Time
}

// New returns an empty queue.
func New() *Queue {
	q := &Queue{pods: map[types.UID]*pod{}}
	q.filled = sync.NewCond(&q.mu)
	return q
}

// Look asks for a look at a pod as soon as a worker is free. After the end of Run it does nothing.
func (q *Queue) Look(uid types.UID, why Reason) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(uid, why)
}

// LookAfter asks for a look after a delay. Each pod has one timer: of several delays the one that ends first
// is kept and the others are lost. So a look that finds that something is due later must ask for it again.
func (q *Queue) LookAfter(uid types.UID, delay time.Duration, why Reason) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if delay <= 0 {
		q.add(uid, why)
		return
	}

	if q.closed {
		return
	}

	p := q.pod(uid)
	due := time.Now().Add(delay)
	if p.timer != nil {
		if !due.Before(p.due) {
			return
		}

		p.timer.Stop()
	}

	// A timer that was replaced may have fired already and wait for the lock: it must not count.
	var timer *time.Timer
	timer = time.AfterFunc(delay, func() {
		q.mu.Lock()
		defer q.mu.Unlock()

		if p.timer == timer {
			p.timer = nil
			q.add(uid, why)
		}
	})

	p.timer = timer
	p.due = due
}

// Run has pods looked at by a number of workers until ctx ends, and returns when the last look has. It is
// called once. look gets all reasons that were given since the look before.
func (q *Queue) Run(ctx context.Context, workers int, look func(context.Context, types.UID, Reasons)) {
	stop := context.AfterFunc(ctx, q.close)
	defer stop()

	var running sync.WaitGroup
	for range max(workers, 1) {
		running.Go(func() {
			for {
				uid, why, open := q.next()
				if !open {
					return
				}

				if uid == noPod {
					q.pass()
					continue
				}

				look(ctx, uid, why)
				q.done(uid)
			}
		})
	}

	running.Wait()
}

// Asked returns when the first reason was given for the look that is on its way, the zero time without one.
func (q *Queue) Asked(uid types.UID) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p := q.pods[uid]; p != nil && p.busy {
		return p.taken
	}
	return time.Time{}
}

// add gives a pod a reason, and a turn if it has none. The caller holds the lock, as in pod.
func (q *Queue) add(uid types.UID, why Reason) {
	if q.closed {
		return
	}

	p := q.pod(uid)
	waiting := p.why != 0
	p.why |= of(why)
	if !waiting {
		p.asked = time.Now()
	}

	if !waiting && !p.busy {
		q.turns = append(q.turns, uid)
		q.filled.Signal()
	}
}

// pod returns what the queue knows of a pod, or begins to know it.
func (q *Queue) pod(uid types.UID) *pod {
	p := q.pods[uid]
	if p == nil {
		p = &pod{}
		q.pods[uid] = p
	}
	return p
}

// next waits for a turn. It is not open when the queue is closed.
func (q *Queue) next() (uid types.UID, why Reasons, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()

	for len(q.turns) == 0 && !q.closed {
		q.filled.Wait()
	}

	if q.closed {
		return "", 0, false
	}

	uid = q.turns[0]
	q.turns = q.turns[1:]
	if uid == noPod {
		return uid, 0, true
	}

	p := q.pods[uid]
	why = p.why
	p.why = 0
	p.taken = p.asked
	p.busy = true
	return uid, why, true
}

// done ends a look, and lets the pod take its next turn if a reason has come meanwhile.
func (q *Queue) done(uid types.UID) {
	q.mu.Lock()
	defer q.mu.Unlock()

	p := q.pods[uid]
	p.busy = false
	switch {
	case p.why != 0:
		q.turns = append(q.turns, uid)
		q.filled.Signal()
	case p.timer == nil:
		delete(q.pods, uid)
	}
}

// close ends the waiting of all workers, and drops what was to be looked at.
func (q *Queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()

	q.closed = true
	for _, p := range q.pods {
		if p.timer != nil {
			p.timer.Stop()
		}
	}
	q.filled.Broadcast()
}
