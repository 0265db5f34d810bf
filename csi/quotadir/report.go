package quotadir

import "sync"

// reports are who is told what a person should know of a volume. It is safe for concurrent use.
type reports struct {
	// mu guards what follows.
	mu   sync.Mutex
	told []func(id string, err error)
}

func (r *reports) tell(id string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.told {
		f(id, err)
	}
}

// OnFinding adds a function that is called with what is found about a volume in the background: files that
// were outside of its project, and what keeps a deleted one from being gone. For what is of no one volume the
// ID is "". It must not block.
func (d *Dirs) OnFinding(f func(id string, err error)) {
	d.reports.mu.Lock()
	defer d.reports.mu.Unlock()
	d.reports.told = append(d.reports.told, f)
}
