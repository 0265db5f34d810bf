// Package health answers whether the agent is well, as /healthz of Kubernetes' components does: by checks
// that have names, each of which can be asked for alone, left out (?exclude=NAME), or shown (?verbose).
package health

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Checks are what the agent's health consists of. The zero value has those that cannot fail: that the agent
// answers (ping), and that what it logs is written, which it does itself before it goes on (log). It is safe
// for concurrent use.
type Checks struct {
	// mu guards added. A check itself runs without it.
	mu    sync.Mutex
	added []*check
}

// check is one of them, with how often it has shown what.
type check struct {
	name   string
	run    func() error
	counts Counts
}

// Counts say what a check has shown.
type Counts struct {
	Name      string
	Failed    bool // the last time
	Successes uint64
	Failures  uint64
}

// Add adds a check, which returns what is wrong. It must not block.
func (c *Checks) Add(name string, run func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.added = append(c.all(), &check{name: name, run: run, counts: Counts{Name: name}})
}

// all are the checks, those that cannot fail first. The caller holds the lock.
func (c *Checks) all() []*check {
	for _, name := range []string{"ping", "log"} {
		if len(c.added) < 2 {
			c.added = append(c.added, &check{
				name:   name,
				run:    func() error { return nil },
				counts: Counts{Name: name},
			})
		}
	}
	return c.added
}

// Counts returns what the checks have shown when they were asked for.
func (c *Checks) Counts() []Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Counts
	for _, one := range c.all() {
		out = append(out, one.counts)
	}
	return out
}

// result runs a check.
func (c *Checks) result(one *check) error {
	err := one.run()

	c.mu.Lock()
	defer c.mu.Unlock()
	one.counts.Failed = err != nil
	if err != nil {
		one.counts.Failures++
	} else {
		one.counts.Successes++
	}
	return err
}

// Register answers GET requests for /healthz and what is below it.
func (c *Checks) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", c.serveAll)
	mux.HandleFunc("GET /healthz/{check}", c.serveOne)
}

// serveAll runs all checks. Why one fails is told where it is asked for alone.
func (c *Checks) serveAll(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	all := slices.Clone(c.all())
	c.mu.Unlock()

	query := r.URL.Query()
	var failed error
	var shown strings.Builder
	for _, one := range all {
		switch {
		case slices.Contains(query["exclude"], one.name):
			fmt.Fprintf(&shown, "[+]%s excluded: ok\n", one.name)
		case c.result(one) == nil:
			fmt.Fprintf(&shown, "[+]%s ok\n", one.name)
		default:
			failed = errors.New("failed")
			fmt.Fprintf(&shown, "[-]%s failed: reason withheld\n", one.name)
		}
	}

	switch {
	case failed != nil:
		http.Error(w, shown.String()+"healthz check failed", http.StatusInternalServerError)
	case query.Has("verbose"):
		answer(w, shown.String()+"healthz check passed\n")
	default:
		answer(w, "ok")
	}
}

// serveOne runs the check that the path names.
func (c *Checks) serveOne(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	all := slices.Clone(c.all())
	c.mu.Unlock()

	i := slices.IndexFunc(all, func(one *check) bool { return one.name == r.PathValue("check") })
	if i < 0 {
		http.NotFound(w, r)
		return
	}
	if err := c.result(all[i]); err != nil {
		http.Error(w, "internal server error: "+err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, "ok")
}

// answer sends a text. A client that does not read it has lost nothing but that.
func answer(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write([]byte(text))
}
