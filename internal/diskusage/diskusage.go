// Package diskusage measures what directory trees take of a disk, as du(1) does, for trees that others write
// to. A tree is counted again only when it may have changed: when those who write there have run, by the CPU
// time of their control group, and the file system is not as full as it was. So looking at a tree in which
// nothing happens costs one statfs(2). A tree that is too large to be counted at once is counted in slices,
// without keeping others waiting.
package diskusage

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"
)

// Usage is what a tree takes.
type Usage struct {
	Bytes  uint64
	Inodes uint64
}

// Activities that are none.
const (
	// Unknown says that those who write to a tree may have run.
	Unknown = -1

	// Ended says that they will not run any more.
	Ended = math.MaxInt64
)

// Tree is what is to be measured.
type Tree struct {
	// Dirs are the directories that it consists of, on one file system and none within another. One that is
	// not there takes nothing.
	Dirs []string

	// Activity changes whenever those who may write to the tree run, such as the CPU time of their control
	// group.
	Activity int64

	// Project is a directory whose project (projectquota) all of the tree is in, and little else. It may be
	// empty or without a project.
	Project string
}

// Figure is what is known of a tree.
type Figure struct {
	Usage

	// Time is when it was so. It is zero if nothing is known yet.
	Time time.Time

	// AtLeast says that the tree takes more: it is being counted, or a part of it cannot be.
	AtLeast bool
}

// Meter measures trees. It may be used by many goroutines.
type Meter struct {
	log  *slog.Logger
	work worker

	// mu guards the trees and what is in them.
	mu    sync.Mutex
	trees map[string]*tree
}

// tree is what a Meter knows of one.
type tree struct {
	name string

	// figure is the last complete one, and last what is known of its count.
	figure Figure
	last   counted

	// project is what the kernel says of the tree's project now, and outside how much more was counted than
	// it said then.
	project project
	outside Usage

	// counting says that a count is under way, begun when and what it has cost by now, and partial what it
	// has found.
	counting bool
	begun    counted
	partial  Usage

	// settled is closed when the count has ended or turned out to take long.
	settled chan struct{}
	warned  bool
	dropped bool
}

// New returns a Meter. It starts nothing until it is asked.
func New(log *slog.Logger) *Meter {
	m := &Meter{log: log, trees: map[string]*tree{}}
	m.work.init(m)
	return m
}

// Close ends the counting that is under way and waits for that. A Meter that is asked later returns what it
// knew.
func (m *Meter) Close() { m.work.close() }

// Measure returns what a tree takes; name tells it from the others, whatever it consists of. If it may have
// changed it is counted, which Measure waits for until ctx ends, unless it is a tree that takes long: then
// the last figure is returned and the next call gets a newer one.
func (m *Meter) Measure(ctx context.Context, name string, t Tree) Figure {
	seen := signs{activity: t.Activity}
	if t.Project != "" && !m.without(name) {
		seen.project = projectOf(t.Project)
	}
	if len(t.Dirs) > 0 {
		seen.space = spaceOf(t.Dirs[0])
	}

	at, settled := m.ask(name, t, seen)
	if settled == nil {
		return m.figure(at)
	}

	select {
	case <-settled:
	case <-ctx.Done():
	}

	return m.figure(at)
}

// without reports whether it is known that a tree has no project.
func (m *Meter) without(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.trees[name]
	return t != nil && t.project.none
}

// ask begins a count of a tree if that is due. It returns what to wait for, nil for nothing.
func (m *Meter) ask(name string, what Tree, seen signs) (*tree, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()

	t := m.trees[name]
	if t == nil {
		t = &tree{name: name}
		m.trees[name] = t
	}

	at := time.Now()
	changes := seen.since(t.last.signs)
	if !t.project.none {
		t.project = seen.project
	}

	switch {
	case t.counting:
		return t, t.settled

	case t.figure.Time.IsZero():
		// It was never counted.
	case !changes.due(at.Sub(t.last.began), t.last.cost):
		// The figure of a tree that is as it was is as good as a new one, and so is one that the kernel
		// keeps.
		if changes.same() || seen.project.known {
			t.figure.Time = at
		}

		return t, nil
	}

	t.counting = true
	t.begun = counted{signs: seen, began: at}
	t.partial = Usage{}
	t.settled = make(chan struct{})
	m.work.add(&job{tree: t, what: what, count: &count{dirs: what.Dirs}}, t.last.large)
	return t, t.settled
}

// figure is what is known of a tree: the last complete figure, or what was counted since if that is more.
func (m *Meter) figure(t *tree) Figure {
	m.mu.Lock()
	defer m.mu.Unlock()

	f := t.figure
	if t.project.known && !f.Time.IsZero() {
		f.Bytes = t.project.Bytes + t.outside.Bytes
		f.Inodes = t.project.Inodes + t.outside.Inodes
		return f
	}

	if t.counting && (t.partial.Bytes > f.Bytes || t.partial.Inodes > f.Inodes) {
		f.Bytes = max(f.Bytes, t.partial.Bytes)
		f.Inodes = max(f.Inodes, t.partial.Inodes)
		f.Time = t.begun.began
		f.AtLeast = true
	}

	return f
}

// Keep forgets all trees for which it returns false.
func (m *Meter) Keep(keep func(name string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, t := range m.trees {
		if !keep(name) {
			t.dropped = true
			delete(m.trees, name)
		}
	}
}

// progress takes over what a slice of a count has found. It returns false when the count is not to go on.
func (m *Meter) progress(j *job, took time.Duration, done bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()

	t := j.tree
	t.begun.cost += took
	t.partial = j.count.usage()
	if !done && !t.dropped {
		return true
	}

	t.counting = false
	if done {
		t.outside = outsideOf(t.partial, t.begun.project.Usage, projectOf(j.what.Project).Usage)
		t.last = t.begun
		t.last.large = j.count.entries > quickEntries
		t.figure = Figure{
			Usage:   t.partial,
			Time:    t.begun.began,
			AtLeast: j.count.unseen > 0,
		}

		m.warn(j)
	}

	return false
}

// warn logs once that a part of a tree cannot be counted.
func (m *Meter) warn(j *job) {
	unseen := j.count.unseen > 0
	if unseen && !j.tree.warned {
		m.log.Warn("a directory tree cannot be measured completely",
			"tree", j.tree.name, "unseen", j.count.unseen, "err", j.count.err)
	}
	j.tree.warned = unseen
}
