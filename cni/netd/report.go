package netd

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// Report is what a pass found.
type Report struct {
	At            time.Time
	Took          time.Duration
	Nodes, Routes int
	Errors        []string // what is tried again soon
	Notes         []string // what only somebody else can mend, such as a node behind a router
}

// stuck is the age of a report that says that the daemon hangs: a pass comes at least every recheck, and
// waits for one call of the plugin.
const stuck = 3 * recheck

// Ready reports whether configuration and routes are as they have to be.
func (r Report) Ready() bool { return len(r.Errors) == 0 }

// Alive reports whether passes are made.
func (r Report) Alive(now time.Time) bool { return now.Sub(r.At) < stuck }

// WriteTo writes the report for a person.
func (r Report) WriteTo(w io.Writer) (int64, error) {
	n, err := fmt.Fprintf(
		w,
		"last sync %s, took %s: %d nodes, %d routes\n",
		r.At.UTC().Format(time.RFC3339),
		r.Took.Round(time.Microsecond),
		r.Nodes,
		r.Routes,
	)

	total := int64(n)
	for _, list := range []struct {
		kind string
		of   []string
	}{{"error", r.Errors}, {"note", r.Notes}} {
		for _, text := range list.of {
			n, e := fmt.Fprintf(w, "%s: %s\n", list.kind, text)
			total += int64(n)
			if err == nil {
				err = e
			}
		}
	}

	return total, err
}

// fail adds an error, each part of a joined one by itself; nil is none.
func (r *Report) fail(err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // only what errors.Join made, not what wraps it
		for _, e := range joined.Unwrap() {
			r.fail(e)
		}
		return
	}
	if err != nil {
		r.Errors = append(r.Errors, err.Error())
	}
}

// tell logs what is new in the report, and what is over. The same error again and again is told once.
func (d *Daemon) tell(r Report) {
	now := map[string]bool{}
	for _, text := range slices.Concat(r.Errors, r.Notes) {
		if !now[text] && !d.told[text] {
			d.log.Warn("the network is not as it has to be", "node", d.options.NodeName, "err", text)
		}

		now[text] = true
	}

	over := len(now) == 0 && (d.told == nil || len(d.told) > 0)
	d.told = now
	if over {
		d.log.Info("the network is as it has to be",
			"node", d.options.NodeName, "nodes", r.Nodes, "routes", r.Routes)
	}
}
