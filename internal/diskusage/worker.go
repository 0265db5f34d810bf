package diskusage

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// A tree is counted at once up to so many entries, or for so long on a disk that is slow. One that is
	// larger makes way for others.
	quickEntries = 1 << 12
	quick        = 250 * time.Millisecond

	// slice is how long such a tree is counted at a time. After it there is a pause of restShare slices: the
	// trees that take long together take a quarter of one processor.
	slice     = 100 * time.Millisecond
	restShare = 3

	// maxOpen is how many counts are under way at the same time, which each hold two descriptors.
	maxOpen = 64
)

// job is the count of a tree that is under way.
type job struct {
	tree  *tree
	what  Tree
	count *count
}

// worker counts trees, one at a time. It has a goroutine only as long as there is something to count.
type worker struct {
	meter   *Meter
	running sync.WaitGroup

	// quick is for how long a tree is counted at once.
	quick time.Duration

	// wake is sent to when there is a new tree, and at the end.
	wake chan struct{}

	// mu guards what follows.
	mu sync.Mutex

	// first are trees that are to be counted now, slow those that take long, which take turns.
	first []*job
	slow  []*job

	// restUntil is when the next slice of a slow tree may begin.
	restUntil time.Time
	runs      bool
	closed    bool
}

func (w *worker) init(m *Meter) {
	w.meter = m
	w.quick = quick
	w.wake = make(chan struct{}, 1)
}

// add has a tree counted.
func (w *worker) add(j *job, slow bool) {
	w.mu.Lock()
	defer w.mu.Unlock()

	switch {
	case w.closed:
		close(j.tree.settled)
		return
	case slow:
		w.slow = append(w.slow, j)
		close(j.tree.settled)
	default:
		w.first = append(w.first, j)
	}

	if !w.runs {
		w.runs = true
		w.running.Go(w.run)
		return
	}

	w.tell()
}

// tell ends a pause.
func (w *worker) tell() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// close ends the worker and waits for that. Nothing is counted any more.
func (w *worker) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()

	w.tell()
	w.running.Wait()
	for _, j := range slices.Concat(w.first, w.slow) {
		j.count.close()
	}
}

// run counts until nothing is left.
func (w *worker) run() {
	for {
		j, isFirst, pause := w.take()
		switch {
		case j != nil:
			w.slice(j, isFirst)
		case pause > 0:
			w.rest(pause)
		default:
			return
		}
	}
}

// take returns the tree whose turn it is, or how long to wait for that. With neither the worker has ended.
func (w *worker) take() (j *job, isFirst bool, pause time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()

	switch {
	case w.closed, len(w.first)+len(w.slow) == 0:
		w.runs = false
		return nil, false, 0

	case len(w.first) > 0:
		j, w.first = w.first[0], w.first[1:]
		return j, true, 0
	}

	if pause := time.Until(w.restUntil); pause > 0 {
		return nil, false, pause
	}

	j, w.slow = w.slow[0], w.slow[1:]
	return j, false, 0
}

// rest waits until a slow tree may be counted again, or something happens.
func (w *worker) rest(pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.wake:
	}
}

// slice counts a tree for a while.
func (w *worker) slice(j *job, isFirst bool) {
	length, entries := slice, math.MaxInt
	if isFirst {
		length, entries = w.quick, quickEntries
	}

	settled := j.tree.settled
	began := time.Now()
	done := j.count.step(began.Add(length), entries)
	took := time.Since(began)
	if w.meter.progress(j, took, done) {
		j.count.walk.Pause()
		w.again(j, isFirst)
	} else {
		j.count.close()
	}

	if isFirst {
		close(settled)
		return
	}

	w.mu.Lock()
	defer w.mu.Unlock()

	w.restUntil = time.Now().Add(restShare * took)
}

// again puts a tree among those that take long. Only the first of them take turns. The others begin from the
// start when theirs comes, so that they hold no descriptor until then.
func (w *worker) again(j *job, isFirst bool) {
	w.mu.Lock()
	defer w.mu.Unlock()

	if !isFirst {
		w.slow = slices.Insert(w.slow, min(len(w.slow), maxOpen-1), j)
		return
	}

	if len(w.slow) >= maxOpen {
		j.count.close()
		j.count = &count{dirs: j.what.Dirs}
	}

	w.slow = append(w.slow, j)
}
